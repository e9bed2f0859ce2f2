// Package slapd runs private OpenLDAP servers: one process each, with a folder, a port and a configuration of its own.
//
// A server answers on ldap:// (with StartTLS) and ldaps:// on the loopback interface. Everyone may read; only the holder of the
// publisher's client certificate (SASL EXTERNAL, RFC 4513, Section 5.2.3) may write. Every write is on the disk before it is
// answered. The package never touches a slapd of the system, nor its configuration, and refuses to run without certificates.
package slapd

import (
	"context"
	"errors"
	"time"
)

var errNotBuilt = errors.New("not built")

// Config describes one server. Dir, Suffix, Certificate, Key, ClientCA and Publisher must be set.
type Config struct {
	Dir         string        // folder of the server; made when it is not there, kept by Stop
	Suffix      string        // base of the tree, such as "o=Hufu,c=CN"
	Schemas     [][]byte      // schema files in slapd's own form, loaded after core and cosine
	Certificate []byte        // PEM: the server's certificate and its chain
	Key         []byte        // PEM: the server's key
	ClientCA    []byte        // PEM: who signs client certificates
	Publisher   []byte        // PEM: a client certificate; whoever shows one with this subject may write
	MaxSize     int64         // of the database in octets; 0 = 1 GiB
	Wait        time.Duration // how long a start or a stop may take; 0 = 30 s
}

// Server is a running slapd, or one that was stopped and can be started again at the same place.
type Server struct{}

// Start writes the configuration and starts the server on a free port of the loopback interface. It returns when the server answers.
func Start(ctx context.Context, cfg Config) (*Server, error) { return nil, errNotBuilt }

// URL returns the address for plain connections and StartTLS, "ldap://127.0.0.1:port".
func (s *Server) URL() string { return "" }

// SecureURL returns the address for TLS, "ldaps://127.0.0.1:port".
func (s *Server) SecureURL() string { return "" }

// Stop ends the process cleanly and waits for it. The folder stays. Stopping twice is no error.
func (s *Server) Stop() error { return errNotBuilt }

// Kill ends the process with SIGKILL and waits for it.
func (s *Server) Kill() error { return errNotBuilt }

// Pause stops the process with SIGSTOP: connections stay open and nothing is answered. Resume lets it go on.
func (s *Server) Pause() error { return errNotBuilt }

// Resume ends a Pause.
func (s *Server) Resume() error { return errNotBuilt }

// Restart starts a stopped or killed server again, on the same ports. A running one is stopped first.
func (s *Server) Restart(ctx context.Context) error { return errNotBuilt }

// Snapshot copies the database to the folder to. The server must be stopped.
func (s *Server) Snapshot(to string) error { return errNotBuilt }

// Revert replaces the database by a copy that Snapshot made. The server must be stopped.
func (s *Server) Revert(from string) error { return errNotBuilt }
