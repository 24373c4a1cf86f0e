// Package rlimit knows how many files this process was allowed to open when it
// began. It must not import os: that package raises the limit as soon as it is
// initialized, and packages without common imports are initialized in the order
// of their paths, so this one comes first. The shell's "ulimit -n" would show
// the raised limit otherwise, which no program that it starts has.
package rlimit

import "syscall"

// files is read before package os changes it.
var files = read()

func read() syscall.Rlimit {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return syscall.Rlimit{}
	}
	return l
}

// Files is the limit of open files as the process was given it.
func Files() (soft, hard uint64) { return files.Cur, files.Max }
