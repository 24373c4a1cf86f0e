// Package cgroup knows the control groups of this machine: which layout it has
// (v1, hybrid, v2) and which limits it can give (Detect), where a container's
// groups are (Host.Group), what they say (Host.Stats), and whether what a
// person asks for can be had (Check). It does not set limits: the OCI runtime
// does.
//
// Traps:
//   - In a hybrid layout the controllers sit on v1 and the v2 tree is there as
//     well; crun refuses the layout when the v2 tree has a controller. The shim
//     hides that tree in the container's own mount namespace.
//   - The files of a root group are not those of a child (pids.max, blkio.weight
//     and all of memory on v2 are missing there), so Detect looks into a group
//     made for the purpose.
//   - A v1 cpuset group holds no process until its cpus and mems are written.
package cgroup
