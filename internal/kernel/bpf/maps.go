package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

var loProto = map[string]uint32{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

type (
	loKey   [32]byte
	loValue [24]byte
)

func keyOf(cookie uint64, l netspec.Loopback) (k loKey) {
	binary.NativeEndian.PutUint64(k[0:], cookie)
	binary.NativeEndian.PutUint32(k[8:], loProto[l.Proto])
	binary.NativeEndian.PutUint32(k[12:], uint32(netPort(l.HostPort)))
	a := l.HostIP.As16()
	copy(k[16:], a[:])
	return k
}

func valueOf(l netspec.Loopback) (v loValue) {
	a := l.To.As16()
	copy(v[toAddr:], a[:])
	binary.NativeEndian.PutUint32(v[toPort:], uint32(netPort(l.ToPort)))
	f := uint32(unix.AF_INET)
	if l.To.Is6() {
		f = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(v[toFamily:], f)
	return v
}

func loopbackOf(k loKey, v loValue) netspec.Loopback {
	l := netspec.Loopback{
		HostIP: netip.AddrFrom16([16]byte(k[16:32])).Unmap(), HostPort: netPort(binary.NativeEndian.Uint16(k[12:])), Count: 1,
		To: netip.AddrFrom16([16]byte(v[0:16])), ToPort: netPort(binary.NativeEndian.Uint16(v[toPort:])),
	}
	if binary.NativeEndian.Uint32(v[toFamily:]) == unix.AF_INET {
		l.To = l.To.Unmap()
	}
	for name, p := range loProto {
		if p == binary.NativeEndian.Uint32(k[8:]) {
			l.Proto = name
		}
	}
	return l
}

// SetLoopback puts l in force for the sockets of a namespace.
func (r *Redirects) SetLoopback(cookie uint64, l netspec.Loopback) error {
	return note(r.lo.Put(keyOf(cookie, l), valueOf(l)), "redirect %v", l.Key())
}

// DelLoopback takes l away.
func (r *Redirects) DelLoopback(cookie uint64, l netspec.Loopback) error {
	return note(missing(r.lo.Delete(keyOf(cookie, l))), "end redirect of %v", l.Key())
}

// Loopbacks reads those of a namespace.
func (r *Redirects) Loopbacks(cookie uint64) ([]netspec.Loopback, error) {
	var out []netspec.Loopback
	var k loKey
	var v loValue
	it := r.lo.Iterate()
	for it.Next(&k, &v) {
		if binary.NativeEndian.Uint64(k[:]) == cookie {
			out = append(out, loopbackOf(k, v))
		}
	}
	return out, note(it.Err(), "read redirects of loopback ports")
}

// SetDNS sends 127.0.0.11:53 of a namespace to a port there.
func (r *Redirects) SetDNS(cookie uint64, port uint16) error {
	return note(r.dns.Put(cookie, uint32(netPort(port))), "redirect the resolver's port")
}

// DelDNS ends that.
func (r *Redirects) DelDNS(cookie uint64) error {
	return note(missing(r.dns.Delete(cookie)), "end redirect of the resolver's port")
}

// DNS is the port of a namespace's resolver; 0: there is none.
func (r *Redirects) DNS(cookie uint64) (uint16, error) {
	var p uint32
	err := r.dns.Lookup(cookie, &p)
	return netPort(uint16(p)), note(missing(err), "read redirect of the resolver's port")
}

// Keep drops what belongs to namespaces that alive does not know: they ended
// while nobody looked. Cookies are never used again, so it is only memory.
func (r *Redirects) Keep(alive func(cookie uint64) bool) error {
	var dead []uint64
	var c uint64
	var p uint32
	it := r.dns.Iterate()
	for it.Next(&c, &p) {
		if !alive(c) {
			dead = append(dead, c)
		}
	}
	errs := []error{note(it.Err(), "read redirects of resolvers")}
	for _, c := range dead {
		errs = append(errs, r.DelDNS(c))
	}
	return errors.Join(errs...)
}

func missing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

func note(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
