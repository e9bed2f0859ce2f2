//go:build !linux

package bolt

import "io/fs"

func lockHolder(fs.FileInfo) (pid string) { return "" }
