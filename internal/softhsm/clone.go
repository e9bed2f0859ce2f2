package softhsm

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Clone copies a token with all its keys to a new one under another label, with the
// same PINs, and returns the new one's serial number. It is what an HSM's own backup
// does, by the only means that SoftHSM has: copying files. Nothing may write to the token
// meanwhile.
func (h *Home) Clone(serial, label string) (string, error) {
	from, err := h.folder(serial)
	if err != nil {
		return "", err
	}
	random := make([]byte, 16)
	rand.Read(random)
	name := hex.EncodeToString(random)
	fresh := name[16:]
	to := filepath.Join(h.Tokens(), strings.Join([]string{name[:8], name[8:12], name[12:16], name[16:20], name[20:]}, "-"))
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return "", fmt.Errorf("copying the token %s: %w", serial, err)
	}
	if err := rename(filepath.Join(to, tokenFile), serial, fresh, label); err != nil {
		return "", fmt.Errorf("naming the copy of the token %s: %w", serial, err)
	}
	return fresh, nil
}

// tokenFile holds what a token says of itself: among it the label, padded to 32 octets,
// then the serial of 16, each after a header of 24.
const tokenFile = "token.object"

// folder returns where the token with that serial lies.
func (h *Home) folder(serial string) (string, error) {
	files, err := filepath.Glob(filepath.Join(h.Tokens(), "*", tokenFile))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("looking for the token %s: %w", serial, err)
		}
		if bytes.Contains(content, []byte(serial)) {
			return filepath.Dir(file), nil
		}
	}
	return "", fmt.Errorf("there is no token %s in %s", serial, h.Tokens())
}

func rename(file, serial, fresh, label string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	at := bytes.Index(content, []byte(serial))
	if at < 24+32 || len(serial) != 16 || len(label) > 32 {
		return fmt.Errorf("%s has another form than SoftHSM 2.6 gives it, or the label %q is too long", file, label)
	}
	copy(content[at:], fresh)
	copy(content[at-24-32:], fmt.Sprintf("%-32s", label))
	return os.WriteFile(file, content, 0o600)
}
