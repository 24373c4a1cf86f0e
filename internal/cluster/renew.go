package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
)

// lookAgain is how often is looked whether the certificate is due: the clock may be set.
const lookAgain = time.Hour

// renewals keeps the certificate from ending.
func (s *session) renewals(ctx context.Context) error {
	for {
		if time.Now().After(s.identity.Due()) {
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

// renew gets a certificate for a new key from the first door that answers.
func (s *session) renew(ctx context.Context) error {
	key, request, err := pki.NewKey()
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range s.openDoors() {
		b, err := door.Renew(ctx, d, s.identity, request)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", d, err))
			continue
		}
		cert, err := pki.DecodeCert(b)
		if err != nil {
			return err
		}
		if _, err := pki.Write(s.c.Dir, s.identity.CA(), cert, key); err != nil {
			return err
		}
		return s.identity.Reload()
	}
	return errors.Join(append(failed, errors.New("no host renews it"))...)
}
