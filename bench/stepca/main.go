// Command stepca is step-ca's server, v0.30.2, as a peer for the benchmarks: its
// own authority, API and bbolt database with the CA key in a PKCS#11 token. It
// is step-ca's main without its command line and its cloud key stores.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/ca"
	_ "github.com/smallstep/certificates/cas/softcas"
	_ "go.step.sm/crypto/kms/pkcs11"
)

func main() {
	file := flag.String("config", "ca.json", "step-ca's configuration")
	flag.Parse()
	if err := run(*file); err != nil {
		fmt.Fprintln(os.Stderr, "stepca: error:", err)
		os.Exit(1)
	}
}

func run(file string) error {
	c, err := config.LoadConfiguration(file)
	if err != nil {
		return err
	}
	server, err := ca.New(c, ca.WithQuiet(true))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return server.Run()
}
