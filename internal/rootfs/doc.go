// Package rootfs looks into a container's file system for cp, export, stat and
// the look-up of users, and copies in and out of it. What is in there is the
// enemy's: a process of the container may swap any name for a symbolic link at
// any moment.
//
// So a View is one file descriptor, and every path is resolved by the kernel
// below it (openat2 with RESOLVE_IN_ROOT): absolute links and ".." end at the
// container's root. Nothing is resolved twice: what was opened is what is read
// or changed. Nothing inside is executed, and archives are unpacked by this
// process alone (GHSA-x86f-5xw2-fm2r).
//
// A running container is seen through /proc/PID/root. A stopped one's mounts
// are made on a thread of their own in a mount namespace of its own, cloned as
// a detached tree, and are gone with the View: the host's mount table never
// shows them.
//
// It does not know containers, images or volumes; the engine does.
//
// Traps:
//   - Changing a mode or an owner by path follows links in OUR root. It is done
//     through /proc/self/fd of what was opened with O_PATH and O_NOFOLLOW.
//   - A file may be a FIFO or a device: it is looked at before it is opened.
package rootfs
