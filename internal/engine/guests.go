package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"isle/internal/cni"
	"isle/internal/network"
	"isle/internal/store"
)

// This file keeps the attachments that runtimes have asked for by CNI: which namespace
// that is not Isle's is on which network, and for whom.

// Guests is what of package network's Manager is about namespaces that somebody else
// made.
type Guests interface {
	// Lent is the id of the sandbox that a namespace is, or would be. Class
	// InvalidArgument: it is the host's, or a container's of ours.
	Lent(ns *os.File) (string, error)
	// Join puts a namespace on a network, or leaves all as it was.
	Join(ctx context.Context, req network.JoinRequest) (network.Joined, error)
	// Joined is the place of a sandbox on a network. Class NotFound.
	Joined(sandboxID, networkID string) (network.Joined, error)
	// Missing says what a place lacks in the kernel.
	Missing(sandboxID, networkID string) ([]string, error)
	// Leave takes a sandbox off a network; ports are those that it keeps. Idempotent.
	Leave(ctx context.Context, sandboxID, networkID string, ports network.PortRequest) error
	// Seats are the places of all sandboxes, also those that wait for a cluster.
	Seats() []network.Seat
}

// attachment is one that ADD made. It is written before anything is done, so that
// nothing is forgotten when isled dies.
type attachment struct {
	Runtime, Config, ContainerID, IfName string
	Interface                            string
	Network, Sandbox                     string // ids
	Ports                                []cni.Port
}

var attachments = store.NewTable[attachment]("cni")

// key is the same in ADD, CHECK and DEL. Two plugins of one chain differ in the
// interface.
func (a attachment) key() string {
	h := sha256.New()
	for _, s := range []string{a.Runtime, a.Config, a.ContainerID, a.Interface} {
		fmt.Fprintf(h, "%d %s ", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// guestbook is the attachments in memory, so that no command reads more than it is about.
type guestbook struct {
	mu        sync.Mutex
	byKey     map[string]attachment
	bySandbox map[string]map[string]attachment
	busy      map[string]*busy // containers that a command is at work on
}

// busy is one container's lock, and how many wait for it or have it.
type busy struct {
	sync.Mutex
	users int
}

// lock is for one command at a time on a container.
func (g *guestbook) lock(container string) (unlock func()) {
	g.mu.Lock()
	if g.busy == nil {
		g.busy = map[string]*busy{}
	}
	b := g.busy[container]
	if b == nil {
		b = &busy{}
		g.busy[container] = b
	}
	b.users++
	g.mu.Unlock()
	b.Lock()
	return func() {
		b.Unlock()
		g.mu.Lock()
		defer g.mu.Unlock()
		if b.users--; b.users == 0 {
			delete(g.busy, container)
		}
	}
}

func (g *guestbook) get(key string) (attachment, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a, ok := g.byKey[key]
	return a, ok
}

func (g *guestbook) set(a attachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byKey == nil {
		g.byKey, g.bySandbox = map[string]attachment{}, map[string]map[string]attachment{}
	}
	if g.bySandbox[a.Sandbox] == nil {
		g.bySandbox[a.Sandbox] = map[string]attachment{}
	}
	g.byKey[a.key()], g.bySandbox[a.Sandbox][a.key()] = a, a
}

func (g *guestbook) drop(a attachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byKey, a.key())
	if delete(g.bySandbox[a.Sandbox], a.key()); len(g.bySandbox[a.Sandbox]) == 0 {
		delete(g.bySandbox, a.Sandbox)
	}
}

// ports are those that all attachments of a sandbox ask for, but one.
func (g *guestbook) ports(sandbox, but string) (all []cni.Port) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(g.bySandbox[sandbox])) {
		if key != but {
			all = append(all, g.bySandbox[sandbox][key].Ports...)
		}
	}
	return all
}

// of are the attachments of a sandbox.
func (g *guestbook) of(sandbox string) []attachment {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.bySandbox[sandbox]))
}

// networks are the ids of those that somebody is attached to.
func (g *guestbook) networks() map[string]bool {
	used := map[string]bool{}
	for _, a := range g.all() {
		used[a.Network] = true
	}
	return used
}

func (g *guestbook) all() []attachment {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.byKey))
}

// admit writes an attachment down.
func (e *Engine) admit(ctx context.Context, a attachment) error {
	err := e.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return attachments.Put(tx, a.key(), a) })
	if err != nil {
		return fmt.Errorf("attachment of %s: %w", a.ContainerID, err)
	}
	e.guests.set(a)
	return nil
}

// dismiss takes an attachment off its network, and then out of the records.
func (e *Engine) dismiss(ctx context.Context, a attachment) error {
	ctx = context.WithoutCancel(ctx)
	if err := e.Guests.Leave(ctx, a.Sandbox, a.Network, mapped(e.guests.ports(a.Sandbox, a.key()))); err != nil {
		return fmt.Errorf("attachment of %s: %w", a.ContainerID, err)
	}
	err := e.Store.Update(ctx, func(tx store.Tx) error { attachments.Delete(tx, a.key()); return nil })
	if err != nil {
		return fmt.Errorf("attachment of %s: %w", a.ContainerID, err)
	}
	e.guests.drop(a)
	return nil
}

// restoreGuests reads the attachments, and finishes what a command that broke off has
// begun: one without a place was not made, or is removed; a place without one is
// nobody's.
func (e *Engine) restoreGuests(ctx context.Context) error {
	if e.Guests == nil {
		return nil
	}
	if err := e.loadGuests(ctx); err != nil {
		return err
	}
	type seat struct{ sandbox, network string }
	nobodys := map[seat]bool{}
	for _, s := range e.Guests.Seats() {
		nobodys[seat{s.Sandbox, s.Network}] = true
	}
	var errs []error
	for _, a := range e.guests.all() {
		if at := (seat{a.Sandbox, a.Network}); nobodys[at] {
			delete(nobodys, at)
			continue
		}
		errs = append(errs, e.dismiss(ctx, a))
	}
	for at := range nobodys {
		errs = append(errs, e.Guests.Leave(ctx, at.sandbox, at.network, mapped(e.guests.ports(at.sandbox, ""))))
	}
	return errors.Join(errs...)
}

// loadGuests leaves out a record that cannot be read: it is no reason to serve nobody.
func (e *Engine) loadGuests(ctx context.Context) error {
	return e.Store.View(ctx, func(tx store.Tx) error {
		for a, err := range attachments.All(tx) {
			if err != nil {
				e.Log.Error("an attachment is not known any more", "error", err)
				continue
			}
			e.guests.set(a)
		}
		return nil
	})
}

// guest is the attachment that a command is about. Class NotFound.
func (e *Engine) guest(c cni.Call) (attachment, error) {
	a, ok := e.guests.get(attachmentOf(c).key())
	if !ok {
		return a, fmt.Errorf("container %s is not attached as %s: %w", c.ContainerID, c.Interface, errdefs.ErrNotFound)
	}
	return a, nil
}

func attachmentOf(c cni.Call) attachment {
	return attachment{Runtime: c.Runtime, Config: c.Config, ContainerID: c.ContainerID, IfName: c.IfName, Interface: c.Interface, Ports: c.Ports}
}
