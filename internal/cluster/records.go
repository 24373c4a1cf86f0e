package cluster

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/door"
	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/store"
)

// What the hosts have in common, besides what directory draws:
//
//	about/cluster     about
//	ca/cert, ca/key   the authority; its key sealed (pki.CA.Seal)
//	member/<host>     record
//	name/host/<name>  id of the host
//	removed/<host>    record, of one that is no more let in
//	token/<key>       of join tokens; goes with a lease

// about is the cluster itself.
type about struct {
	ID      string
	Members int // how many hosts keep its memory
}

// record is a host that has joined.
type record struct {
	ID, Name string
	Addr     netip.Addr
	Ports    door.Ports
	Joined   int      // in this order they came; 0: nobody knows
	Member   bool     // it keeps the memory (when that is inside of isled) and a door
	Certs    []issued // that it was given and that hold
}

// issued is a certificate that was given out.
type issued struct {
	Serial string
	Until  time.Time
}

// keepCert adds a certificate to a host's, and leaves out those that have ended whatever
// the clocks say.
func (r *record) keepCert(c *x509.Certificate) error {
	r.Certs = slices.DeleteFunc(slices.Clone(r.Certs), func(i issued) bool { return time.Since(i.Until) > 48*time.Hour })
	if len(r.Certs) >= maxCerts {
		return fmt.Errorf("host %s has had %d certificates that still hold: %w", r.Name, len(r.Certs), errdefs.ErrPermissionDenied)
	}
	r.Certs = append(r.Certs, issued{pki.Serial(c), c.NotAfter})
	return nil
}

var (
	clusters = store.NewTable[about]("about")
	hosts    = store.NewTable[record]("member")
	removed  = store.NewTable[record]("removed")
)

const (
	aboutKey   = "cluster"
	caCertKey  = "ca/cert"
	caKeyKey   = "ca/key"
	tokenTable = "token/"
	// maxCerts bounds how often a host gets another certificate: some are for what goes
	// wrong on the way.
	maxCerts = 16
)

func hostNameKey(name string) string { return "name/host/" + name }

func (r record) client() string {
	u := member.URL(r.Addr, r.Ports.Client)
	return u.String()
}

func (r record) peer() string {
	u := member.URL(r.Addr, r.Ports.Peer)
	return u.String()
}

func (r record) door() string {
	return net.JoinHostPort(r.Addr.String(), strconv.Itoa(int(r.Ports.Door)))
}

// add writes a host down whose name and address nobody has.
func add(tx store.Tx, r record) error {
	if owner, ok := tx.Get(hostNameKey(r.Name)); ok {
		return fmt.Errorf("a host with name %s is already in the cluster: %s (hint: --name NAME; isle cluster rm %s if it is gone for good): %w", r.Name, owner, r.Name, errdefs.ErrAlreadyExists)
	}
	for other, err := range hosts.All(tx) {
		r.Joined = max(r.Joined, other.Joined+1)
		if err == nil && other.Addr == r.Addr {
			return fmt.Errorf("address %s is already in use by host %s (hint: isle cluster rm %s if it is gone for good): %w", r.Addr, other.Name, other.Name, errdefs.ErrConflict)
		}
	}
	tx.Put(hostNameKey(r.Name), []byte(r.ID))
	return hosts.Put(tx, r.ID, r)
}

// retire takes a host out; it is not let in any more.
func retire(tx store.Tx, id string) error {
	r, err := hosts.Get(tx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		r = record{ID: id} // what cannot be read is taken out all the same
	}
	hosts.Delete(tx, id)
	if r.Name != "" {
		tx.Delete(hostNameKey(r.Name))
	}
	return removed.Put(tx, id, r)
}
