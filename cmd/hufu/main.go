// Command hufu is Hufu's one binary: the node (hufu serve) that holds the
// book, the keys and the doors, and the client of such a node that admins,
// operators and auditors use.
//
// It wires the floors together and does nothing else: no rule about a
// certificate, a right or a load stands here. It alone reads flags, the
// environment and the configuration file, and it alone ends the process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cmd := newRootCommand()
	err := keepMemory()
	if err == nil {
		cmd, err = cmd.ExecuteContextC(ctx)
	}
	stop()
	os.Exit(report(cmd, err))
}
