package dhcp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// What ends an attempt, though not the client.
var (
	errInterface = errors.New("the interface failed")
	errNoAnswer  = errors.New("no answer")
	errRefused   = errors.New("refused by the server")
	errInUse     = errors.New("address in use")
)

// tally counts what was tried, for the sentence when it comes to nothing. It
// belongs to the client's goroutine.
type tally struct {
	name         string // of the interface
	nobody, half string // what to say when nobody answered, and when nothing came of answers
	start        time.Time
	kinds        []string // in the order of the dialogue
	n            map[string]int
	why          []string // answers that were not taken, each once
	used         string   // the last address in use, by whom
	link         error    // why the interface cannot be used now
}

func newTally(name, nobody, half string, kinds ...string) *tally {
	return &tally{name: name, nobody: nobody, half: half, start: time.Now(), kinds: kinds, n: map[string]int{}}
}

func (t *tally) count(kind string) { t.n[kind]++ }

func (t *tally) refuse(why string) {
	if len(t.why) < 4 && !slices.Contains(t.why, why) {
		t.why = append(t.why, why)
	}
}

// counted is "4 DISCOVER sent, 0 OFFER": questions, and the answer to the last.
func (t *tally) counted() string {
	var s []string
	for i, k := range t.kinds {
		first := i < 2
		if sent := i%2 == 0; sent && (first || t.n[k] > 0) {
			s = append(s, fmt.Sprintf("%d %s sent", t.n[k], k))
		} else if !sent && (first || t.n[t.kinds[i-1]] > 0) {
			s = append(s, fmt.Sprintf("%d %s", t.n[k], k))
		}
	}
	return strings.Join(s, ", ")
}

// fail says what was tried in all, after why it ended.
func (t *tally) fail(cause error) error {
	long := time.Since(t.start).Round(100 * time.Millisecond)
	switch {
	case errors.Is(cause, context.Canceled):
		return fmt.Errorf("dhcp on %s: given up after %s: %s: %w", t.name, long, t.counted(), cause)
	case t.link != nil:
		return fmt.Errorf("no DHCP on %s in %s: %w", t.name, long, t.link)
	case t.used != "":
		return fmt.Errorf("%d offers of DHCP servers on %s in %s, all declined: %s (hint: give the address back to the server's pool, "+
			"or find who took it): %w", t.n["DECLINE"], t.name, long, t.used, errdefs.ErrConflict)
	case len(t.why) > 0:
		return fmt.Errorf("no usable answer of a DHCP server on %s in %s: %s; %s: %w", t.name, long, t.counted(), strings.Join(t.why, "; "), errdefs.ErrUnavailable)
	case t.n[t.kinds[1]] > 0:
		return fmt.Errorf("%s on %s in %s: %s: %w", t.half, t.name, long, t.counted(), errdefs.ErrUnavailable)
	}
	return fmt.Errorf("%s on %s in %s: %s (hint: is there one on this LAN, and does the switch or hypervisor let other MACs through?): %w",
		t.nobody, t.name, long, t.counted(), errdefs.ErrUnavailable)
}
