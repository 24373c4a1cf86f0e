// Package cni reads what a CNI plugin is called with and writes what it answers, as
// the specification of the Container Network Interface says (versions 0.3.0 to 1.1.0).
// It is pure: it does nothing to networks, and trusts nothing that it reads.
//
//	containerd, CRI-O, nerdctl
//	   │ environment, configuration on stdin
//	isle-cni ── POST /isle/v1/cni/add ──► server ──► Parse ──► engine ──► network
//	   ▲ result or error on stdout                              │
//	   └──────────────────────────────────────── Result.JSON ◄──┘
package cni
