package image

import (
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
)

// every is how often a moving number is shown.
const every = 100 * time.Millisecond

// progress tells a client how far things are, one message at a time and not
// more often than a person can see. A nil func is allowed.
type progress struct {
	mu   sync.Mutex
	to   func(jsonstream.Message)
	last map[string]time.Time // of moving numbers, by id
}

func newProgress(to func(jsonstream.Message)) *progress {
	return &progress{to: to, last: map[string]time.Time{}}
}

// say shows a status, of the thing id or, when that is empty, of the whole.
func (p *progress) say(id, status string) {
	p.send(jsonstream.Message{ID: id, Status: status})
}

// step shows a status of a layer; clients draw a line for it.
func (p *progress) step(id, status string) {
	p.send(jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{}})
}

func (p *progress) send(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != nil {
		p.to(m)
	}
}

// move shows a moving number if it is time to; the last one is always shown.
func (p *progress) move(id, status string, n, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.to == nil || n < total && now.Sub(p.last[id]) < every {
		return
	}
	p.last[id] = now
	p.to(jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: n, Total: total}})
}

// shortDigest is how people are shown a layer.
func shortDigest(d digest.Digest) string { return d.Encoded()[:12] }
