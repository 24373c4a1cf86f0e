package cgroup

import "golang.org/x/sys/unix"

var (
	// errReadOnly is what a cgroup file system mounted read-only answers.
	errReadOnly error = unix.EROFS
	// errNoDevice is what a file of a group answers that has just been removed.
	errNoDevice error = unix.ENODEV
)
