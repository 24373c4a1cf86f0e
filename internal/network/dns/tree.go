package dns

import "hash/maphash"

// tree is an immutable map: a change makes a new one that shares all but
// O(log n) nodes with the old. It is a treap; a key's priority is its hash, so
// that equal contents are equal trees whatever the order they came in.
type tree[K comparable, V any] struct {
	root *node[K, V]
	cmp  func(a, b K) int
}

type node[K comparable, V any] struct {
	left, right *node[K, V]
	prio        uint64
	key         K
	val         V
}

var seed = maphash.MakeSeed()

func newTree[K comparable, V any](cmp func(a, b K) int) tree[K, V] { return tree[K, V]{cmp: cmp} }

func (t tree[K, V]) get(k K) (v V, ok bool) {
	for n := t.root; n != nil; {
		switch c := t.cmp(k, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.val, true
		}
	}
	return v, false
}

func (t tree[K, V]) with(k K, v V) tree[K, V] {
	l, r := t.split(t.remove(t.root, k), k)
	t.root = join(join(l, &node[K, V]{prio: maphash.Comparable(seed, k), key: k, val: v}), r)
	return t
}

func (t tree[K, V]) without(k K) tree[K, V] {
	t.root = t.remove(t.root, k)
	return t
}

// remove copies nothing if k is not there.
func (t tree[K, V]) remove(n *node[K, V], k K) *node[K, V] {
	if n == nil {
		return nil
	}
	left, right := n.left, n.right
	switch c := t.cmp(k, n.key); {
	case c < 0:
		left = t.remove(n.left, k)
	case c > 0:
		right = t.remove(n.right, k)
	default:
		return join(left, right)
	}
	if left == n.left && right == n.right {
		return n
	}
	m := *n
	m.left, m.right = left, right
	return &m
}

// split parts the nodes of n into those below k and those above.
func (t tree[K, V]) split(n *node[K, V], k K) (below, above *node[K, V]) {
	if n == nil {
		return nil, nil
	}
	m := *n
	if t.cmp(n.key, k) < 0 {
		m.right, above = t.split(n.right, k)
		return &m, above
	}
	below, m.left = t.split(n.left, k)
	return below, &m
}

// join makes one tree of two, all of a below all of b.
func join[K comparable, V any](a, b *node[K, V]) *node[K, V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.prio > b.prio:
		m := *a
		m.right = join(a.right, b)
		return &m
	}
	m := *b
	m.left = join(a, b.left)
	return &m
}

// all calls do for every key in order, until it returns false.
func (n *node[K, V]) all(do func(K, V) bool) bool {
	return n == nil || (n.left.all(do) && do(n.key, n.val) && n.right.all(do))
}

// from calls do for the keys from k on in order, until it returns false.
func (t tree[K, V]) from(k K, do func(K, V) bool) { t.after(t.root, k, do) }

func (t tree[K, V]) after(n *node[K, V], k K, do func(K, V) bool) bool {
	if n == nil {
		return true
	}
	if t.cmp(n.key, k) < 0 {
		return t.after(n.right, k, do)
	}
	return t.after(n.left, k, do) && do(n.key, n.val) && n.right.all(do)
}
