package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
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

type (
	rowKey   [36]byte
	rowValue [40]byte
)

// rowsOf are the keys of a row of ports: blocks whose numbers begin with the
// same bits, at most thirty.
func rowsOf(cookie uint64, l netspec.Loopback) (keys []rowKey) {
	base := keyOf(cookie, l)
	for at, end := int(l.HostPort), int(l.HostPort)+int(l.Count); at < end; {
		size := 1
		for at%(2*size) == 0 && at+2*size <= end {
			size *= 2
		}
		var k rowKey
		binary.NativeEndian.PutUint32(k[0:], uint32(wholeKey-bits.TrailingZeros(uint(size))))
		copy(k[4:16], base[0:12])
		copy(k[16:32], base[16:32])
		binary.BigEndian.PutUint16(k[32:], uint16(at))
		keys, at = append(keys, k), at+size
	}
	return keys
}

func rowValueOf(l netspec.Loopback) (v rowValue) {
	lo := valueOf(l)
	copy(v[:], lo[:])
	binary.NativeEndian.PutUint32(v[rowOffset:], uint32(l.ToPort-l.HostPort))
	binary.NativeEndian.PutUint32(v[rowFirst:], uint32(l.HostPort))
	binary.NativeEndian.PutUint32(v[rowSize:], uint32(l.Count))
	return v
}

// rowOf is the row that one of its blocks tells of.
func rowOf(k rowKey, v rowValue) netspec.Loopback {
	var lk loKey
	copy(lk[0:12], k[4:16])
	copy(lk[16:32], k[16:32])
	l := loopbackOf(lk, loValue(v[:24]))
	l.HostPort = uint16(binary.NativeEndian.Uint32(v[rowFirst:]))
	l.Count = uint16(binary.NativeEndian.Uint32(v[rowSize:]))
	return l
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
	if l.Count <= 1 {
		return note(r.lo.Put(keyOf(cookie, l), valueOf(l)), "redirect %v", l.Key())
	}
	v := rowValueOf(l)
	for _, k := range rowsOf(cookie, l) {
		if err := r.rows.Put(k, v); err != nil {
			return note(err, "redirect %v", l.Key())
		}
	}
	return nil
}

// DelLoopback takes l away.
func (r *Redirects) DelLoopback(cookie uint64, l netspec.Loopback) error {
	if l.Count <= 1 {
		return note(missing(r.lo.Delete(keyOf(cookie, l))), "end redirect of %v", l.Key())
	}
	var errs []error
	for _, k := range rowsOf(cookie, l) {
		errs = append(errs, note(missing(r.rows.Delete(k)), "end redirect of %v", l.Key()))
	}
	return errors.Join(errs...)
}

// Loopbacks reads those of a namespace. A row of which a part is missing is not
// there.
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
	rows, err := r.readRows(cookie)
	return append(out, rows...), errors.Join(note(it.Err(), "read redirects of loopback ports"), err)
}

func (r *Redirects) readRows(cookie uint64) (out []netspec.Loopback, err error) {
	blocks := map[netspec.Loopback]int{}
	var k rowKey
	var v rowValue
	it := r.rows.Iterate()
	for it.Next(&k, &v) {
		if binary.NativeEndian.Uint64(k[4:]) == cookie {
			blocks[rowOf(k, v)]++
		}
	}
	for l, n := range blocks {
		if n == len(rowsOf(cookie, l)) {
			out = append(out, l)
		}
	}
	return out, note(it.Err(), "read redirects of rows of loopback ports")
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
