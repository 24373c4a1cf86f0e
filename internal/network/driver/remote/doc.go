// Package remote is the driver of networks that plugins of Docker's protocol make:
// programs that answer HTTP on a socket below /run/docker/plugins, or at an address
// that a file in /etc/docker/plugins names. The same programs can give out addresses.
//
//	reg := remote.New(remote.Config{Seats: seats})
//	d, ipam := reg.Driver("weave"), reg.IPAM("infoblox") // nobody is asked yet
//	err := reg.Follow(ctx, cluster, log)                 // tells them of other hosts
//
// What is in which file: discover.go finds plugins, client.go speaks HTTP, plugin.go
// activates them and waits for those that restart, wire.go and wireipam.go are the
// protocol's own types, options.go what Docker puts into the maps of options,
// answer.go checks what plugins say. nodes.go tells them which hosts there are. attach.go is the way of an endpoint, plan.go what
// Isle itself adds to its link.
//
// It is not for Docker's managed plugins (images with a rootfs). It calls no kernel: a
// link that a plugin made is moved by Seats.
//
// Traps. Plugins are not trusted to be right: answers are limited in size and time,
// and checked before anything is done with them. The protocol has no way to ask what a
// plugin knows, and no codes of errors: see README.md for what follows from that.
package remote
