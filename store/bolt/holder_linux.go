package bolt

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// lockHolder finds the process that has the file locked in the kernel's list: "1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF".
func lockHolder(file fs.FileInfo) (pid string) {
	if file == nil {
		return ""
	}
	stat, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	inode := fmt.Sprintf(":%d", stat.Ino)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		// The device that is listed differs from that of the file on some file systems, so the inode has to do.
		if len(f) >= 6 && f[1] == "FLOCK" && strings.HasSuffix(f[5], inode) {
			return f[4]
		}
	}
	return ""
}
