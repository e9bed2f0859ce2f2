package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
)

// prSetDumpable is PR_SET_DUMPABLE of prctl(2).
const prSetDumpable = 4

// keepMemory turns core dumps of this process off: PINs and opened scripts must
// not lie in a core file. The limit alone is not enough where the kernel hands
// cores to a program (core(5)); the flag also keeps other processes of the same
// user from reading this one.
func keepMemory() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("turning core dumps off: %w", errno)
	}
	return nil
}

// garbagePercent is how much a node allocates, in percent of what it keeps,
// before garbage is collected. A node keeps little (some ten megabytes) and
// allocates much, so Go's own 100 would spend a twelfth of the CPU on it.
const garbagePercent = 400

// collectSeldom sets garbagePercent, unless the operator has chosen.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
