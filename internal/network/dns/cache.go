package dns

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"
	"unique"
)

// key is one question to one set of servers.
type key struct {
	name          string
	qtype, qclass uint16
	do, cd        bool
	servers       unique.Handle[string]
}

const (
	shards       = 16
	cacheBytes   = 4 << 20
	cacheEntries = 16 << 10
)

// cache keeps answers of servers outside: within bounds, those used last. Its
// shards are locked one by one. The zero value is ready.
type cache struct{ shards [shards]shard }

type shard struct {
	mu    sync.Mutex
	items map[key]*list.Element
	used  list.List // of *item, the last one used in front
	bytes int
}

type item struct {
	key
	*entry
	retry time.Time // set: the servers have failed, and are asked again after it
}

// size is about what the item takes; its name may be four times as long as it
// was in the message.
func (it *item) size() int { return len(it.name) + it.entry.size() }

func (c *cache) shard(k key) *shard { return &c.shards[maphash.Comparable(seed, k)%shards] }

// get finds an answer, fresh or not; retry is set when the servers failed to
// renew it.
func (c *cache) get(k key, now time.Time) (e *entry, retry time.Time) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.items[k]
	if el == nil {
		return nil, retry
	}
	it := el.Value.(*item)
	if now.After(it.at.Add(it.ttl + maxStale)) {
		s.remove(el)
		return nil, retry
	}
	s.used.MoveToFront(el)
	return it.entry, it.retry
}

func (c *cache) put(k key, e *entry) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.items[k]; el != nil {
		s.remove(el)
	}
	if s.items == nil {
		s.items = map[key]*list.Element{}
	}
	it := &item{key: k, entry: e}
	s.items[k] = s.used.PushFront(it)
	s.bytes += it.size()
	for s.bytes > cacheBytes/shards || len(s.items) > cacheEntries/shards {
		s.remove(s.used.Back())
	}
}

func (c *cache) forget(k key) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.items[k]; el != nil {
		s.remove(el)
	}
}

// failed notes that a stale answer cannot be renewed now.
func (c *cache) failed(k key, retry time.Time) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.items[k]; el != nil {
		el.Value.(*item).retry = retry
	}
}

func (s *shard) remove(el *list.Element) {
	it := el.Value.(*item)
	s.used.Remove(el)
	delete(s.items, it.key)
	s.bytes -= it.size()
}

// drop forgets everything.
func (c *cache) drop() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.items, s.bytes = nil, 0
		s.used.Init()
		s.mu.Unlock()
	}
}

func (c *cache) size() (entries, bytes int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		entries, bytes = entries+len(s.items), bytes+s.bytes
		s.mu.Unlock()
	}
	return entries, bytes
}
