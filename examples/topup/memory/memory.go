// Package memory keeps what a process of this example has in its memory from
// leaving it: keys of cards, opened scripts and PINs must not lie in a core file.
package memory

import (
	"fmt"
	"syscall"
)

// prSetDumpable is PR_SET_DUMPABLE of prctl(2).
const prSetDumpable = 4

// Keep turns core dumps of this process off, and with them what reads another
// process's memory. The limit alone is not enough where the kernel hands cores
// to a program (core(5)).
func Keep() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("turning core dumps off: %w", errno)
	}
	return nil
}
