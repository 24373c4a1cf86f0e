package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// dnsLoad asks for NAME with each worker on a socket and a thread of its own,
// one question at a time.
func dnsLoad(o options, name string) (result, error) {
	server, search, err := o.nameServer()
	if err != nil {
		return result{}, err
	}
	if name, err = known(server, name, search, o.fresh); err != nil {
		return result{}, err
	}
	askers := make([]asker, o.workers)
	var group errgroup.Group
	start := time.Now()
	for i := range askers {
		askers[i] = asker{name: name, fresh: o.fresh, number: i << 24}
		group.Go(func() error { return askers[i].run(server, start.Add(o.time)) })
	}
	if err := group.Wait(); err != nil {
		return result{}, err
	}
	return sum(askers, time.Since(start)), nil
}

// nameServer is whom to ask, and the domains in which names are.
func (o options) nameServer() (server string, search []string, err error) {
	if o.server != "" {
		return o.server, nil, nil
	}
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return "", nil, err
	}
	if len(conf.Servers) == 0 {
		return "", nil, errors.New("/etc/resolv.conf names no server")
	}
	return net.JoinHostPort(conf.Servers[0], "53"), conf.Search, nil
}

func sum(askers []asker, took time.Duration) result {
	var all []time.Duration
	lost := 0
	for _, a := range askers {
		all, lost = append(all, a.took...), lost+a.lost
	}
	r := quantiles(all)
	r.Rate, r.Lost = float64(len(all))/took.Seconds(), lost
	return r
}

// known is the form of name that the server answers: a container's bare name, or
// with the search domain, as its C library would find out.
func known(server, name string, search []string, fresh bool) (string, error) {
	for _, suffix := range append([]string{""}, search...) {
		full := dns.Fqdn(name)
		if suffix != "" {
			full += dns.Fqdn(suffix)
		}
		a := asker{name: full, fresh: fresh}
		if err := a.run(server, time.Time{}); err == nil && len(a.took) == 1 {
			return full, nil
		}
	}
	return "", fmt.Errorf("%s does not know %s", server, name)
}

// asker is one worker.
type asker struct {
	name   string
	fresh  bool
	number int

	took []time.Duration
	lost int
}

// run asks once and then until the deadline.
func (a *asker) run(server string, deadline time.Time) error {
	fd, err := dial(unix.SOCK_DGRAM, server)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ask, err := a.question()
	if err != nil {
		return err
	}
	answer := make([]byte, 4096)
	for {
		a.next(ask)
		sent := time.Now()
		if err := exchange(fd, ask, answer); errors.Is(err, unix.EAGAIN) {
			a.lost++
		} else if err != nil {
			return err
		} else {
			a.took = append(a.took, time.Since(sent))
		}
		if time.Now().After(deadline) {
			return nil
		}
	}
}

// question is the packet; next changes its id, and the digits of a fresh name.
func (a *asker) question() ([]byte, error) {
	name := a.name
	if a.fresh {
		name = "00000000." + name
	}
	return new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
}

func (a *asker) next(ask []byte) {
	a.number++
	binary.BigEndian.PutUint16(ask, uint16(a.number))
	if a.fresh {
		copy(ask[13:21], fmt.Sprintf("%08x", uint32(a.number)))
	}
}

// exchange waits for the answer of ask: late ones of others are passed over.
func exchange(fd int, ask, answer []byte) error {
	if _, err := unix.Write(fd, ask); err != nil {
		return err
	}
	for {
		n, err := unix.Read(fd, answer)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n < 12 || answer[0] != ask[0] || answer[1] != ask[1]:
		case answer[3]&0xf != dns.RcodeSuccess || binary.BigEndian.Uint16(answer[6:]) == 0:
			return fmt.Errorf("no address: %s", dns.RcodeToString[int(answer[3]&0xf)])
		default:
			return nil
		}
	}
}
