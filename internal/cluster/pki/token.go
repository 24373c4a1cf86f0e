package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	tokenPrefix = "isle1-"
	secretLen   = 20
)

var encoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding) // without l, o, 0, 1

// Token lets hosts into a cluster.
type Token struct {
	CA     [32]byte // Hash of the authority
	Secret [secretLen]byte
}

// NewToken makes one for the cluster of an authority.
func NewToken(c [32]byte) Token {
	t := Token{CA: c}
	rand.Read(t.Secret[:])
	return t
}

// String is what people copy.
func (t Token) String() string {
	b := append(t.CA[:], t.Secret[:]...)
	return tokenPrefix + encoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// Shown is the secret as it is shown to the cluster.
func (t Token) Shown() string { return hex.EncodeToString(t.Secret[:]) }

// Key is what the cluster remembers of a secret that is shown: who reads it cannot come in
// by it.
func Key(shown string) string {
	h := sha256.Sum256([]byte(shown))
	return hex.EncodeToString(h[:])
}

// ParseToken reads what String wrote.
func ParseToken(s string) (t Token, err error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return t, fmt.Errorf("this is no join token: it does not begin with %s: %w", tokenPrefix, errdefs.ErrInvalidArgument)
	}
	b, err := encoding.DecodeString(rest)
	if err == nil && encoding.EncodeToString(b) != rest {
		err = base32.CorruptInputError(len(rest)) // bits that count for nothing are set
	}
	if n := len(t.CA) + len(t.Secret); err != nil || len(b) != n+4 || binary.BigEndian.Uint32(b[n:]) != crc32.ChecksumIEEE(b[:n]) {
		return t, fmt.Errorf("the join token is damaged: a character is missing or wrong: %w", errdefs.ErrInvalidArgument)
	}
	copy(t.CA[:], b)
	copy(t.Secret[:], b[len(t.CA):])
	return t, nil
}
