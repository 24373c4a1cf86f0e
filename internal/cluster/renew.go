package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
)

// lookAgain is how often is looked whether the certificate is due: the clock may be set.
const lookAgain = time.Hour

// renewals keeps the certificate from ending.
func (s *session) renewals(ctx context.Context) error {
	for {
		if s.now(ctx).After(s.identity.Due()) {
			if err := s.renew(ctx); err != nil {
				s.log.Warn("the certificate of this host is not renewed", "end", s.identity.Cert().Leaf.NotAfter, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// now is what time it is where certificates are signed: this host's clock may be wrong,
// and it would get one after another, or none.
func (s *session) now(ctx context.Context) time.Time {
	for _, d := range s.signers() {
		if off, err := door.Ahead(ctx, d, pki.Hash(s.identity.CA())); err == nil {
			return time.Now().Add(off)
		}
	}
	return time.Now()
}

// signers are the doors, this host's last: its clock is the one that cannot tell that it
// is wrong.
func (s *session) signers() []string {
	all := s.openDoors()
	slices.Reverse(all)
	return all
}

// renew gets a certificate for a new key from the first door that gives one which is of
// use.
func (s *session) renew(ctx context.Context) error {
	key, request, err := pki.NewKey()
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range s.signers() {
		b, err := door.Renew(ctx, d, s.identity, request)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", d, err))
			continue
		}
		cert, err := pki.DecodeCert(b)
		if err != nil {
			return err
		}
		if end := s.identity.Cert().Leaf.NotAfter; cert.NotAfter.Before(end) {
			failed = append(failed, fmt.Errorf("%s: the new certificate would end on %s, before the one that there is: the clock there is behind", d, cert.NotAfter.Format(time.DateOnly)))
			continue
		}
		if _, err := pki.Write(s.c.Dir, s.identity.CA(), cert, key); err != nil {
			return err
		}
		return s.identity.Reload()
	}
	return errors.Join(append(failed, errors.New("no host renews it"))...)
}
