package ceremony

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
)

// proveClone has the second token sign a fresh challenge with its copy of the root's key.
func (r *room) proveClone(ctx context.Context) error {
	if r.script.Clone == nil {
		return nil
	}
	if r.env.CloneKey != nil {
		if err := r.env.CloneKey(ctx); err != nil {
			return fmt.Errorf("cloning the key: %w", err)
		}
	}
	err := r.confirm(ctx, "clone", fmt.Sprintf("The root's key %q must be in the second token by now, brought there by the HSM's own means.\n", r.key.Label()))
	if err != nil {
		return err
	}
	second, err := r.open(ctx, r.script.Clone)
	if err != nil {
		return err
	}
	defer second.Close()
	if second.Info().Serial == r.token.Info().Serial {
		return errors.New("the second token is the first one: their serials are the same")
	}
	if err := r.tellToken(second, "the second token"); err != nil {
		return err
	}
	k, err := existingKey(ctx, second, r.root)
	if err != nil {
		return err
	}
	challenge := make([]byte, 32)
	rand.Read(challenge)
	sig, err := k.Within(ctx).Sign(nil, cloneDigest(challenge), crypto.SHA256)
	if err != nil {
		return err
	}
	if err := checkClone(r.root, challenge, sig); err != nil {
		return err
	}
	f := attributeFacts(k)
	f["challenge"], f["signature"] = hex.EncodeToString(challenge), hex.EncodeToString(sig)
	return r.log.write(actClone, fmt.Sprintf("the second token, serial %s, has signed a fresh challenge with the root's key", second.Info().Serial), f)
}

// cloneDigest keeps the proof apart from everything else that the key signs: a
// certificate or a CRL begins with the octet 30.
func cloneDigest(challenge []byte) []byte {
	sum := sha256.Sum256(append([]byte("hufu ceremony: proof of a cloned key\n"), challenge...))
	return sum[:]
}

// checkClone verifies the proof with the root's certificate.
func checkClone(root, challenge, sig []byte) error {
	certificate, err := x509.ParseCertificate(root)
	if err != nil {
		return err
	}
	good := false
	switch pub := certificate.PublicKey.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(pub, cloneDigest(challenge), sig)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(pub, crypto.SHA256, cloneDigest(challenge), sig) == nil
	}
	if !good || len(challenge) != 32 {
		return errors.New("the second token's signature does not verify with the root's key")
	}
	return nil
}
