// Package ceremony holds the ceremonies of the offline root.
package ceremony

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"hufu/hsm"
)

// rootID is the root's ID among the CAs.
const rootID = "root"

var errNotBuilt = errors.New("not built yet")

// Env is where a ceremony takes place.
type Env struct {
	In  io.Reader        // where the officers type
	Out io.Writer        // what they read
	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil is silent

	// CredentialsDir is the value of $CREDENTIALS_DIRECTORY.
	CredentialsDir string
	// Unattended asks nobody. It is for worlds that are thrown away; the transcript
	// says so, and so does whoever verifies it.
	Unattended bool
	// CloneKey brings the root's key to the second token. Nil asks the officers to do
	// it with the HSM's own tool and to say so.
	CloneKey func(ctx context.Context) error
}

// Result is what a ceremony made.
type Result struct {
	Out  string   // the folder
	Root [32]byte // SHA-256 of the root's certificate
	Head string   // the transcript's last hash; the officers write it down
}

// Stage is the stand-in for the tokens of the script in a rehearsal.
type Stage struct {
	Token Token
	Clone *Token
	Out   string
}

// Run holds the ceremony that the script describes.
func Run(ctx context.Context, s *Script, env Env) (*Result, error) { return nil, errNotBuilt }

// Rehearse does the same on throw-away tokens. What it makes is named REHEARSAL.
func Rehearse(ctx context.Context, s *Script, env Env, stage Stage) (*Result, error) {
	return nil, errNotBuilt
}

// Report is what Verify found.
type Report struct {
	Name         string
	Officers     []string
	Began, Ended time.Time
	Lines        int
	Head         string
	Root         [32]byte
	Files        []string
	Unattended   bool
	Rehearsal    bool
}

// TranscriptName is the transcript's file in the ceremony's folder.
const TranscriptName = "transcript.log"

// Verify checks a transcript and the files that it tells of.
func Verify(transcript []byte, artefacts fs.FS) (*Report, error) { return nil, errNotBuilt }

var _ hsm.Config
