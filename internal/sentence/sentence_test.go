package sentence_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"isle/internal/sentence"
)

// TestOf: the errors are those that Go's library gives today; a text of it
// that is no longer known is found here.
func TestOf(t *testing.T) {
	const address, prefix = " is not an IP address (hint: write it like 192.0.2.1 or 2001:db8::1)", " is not a prefix (hint: write it like 192.0.2.0/24 or 2001:db8::/64)"
	for _, s := range []string{"banana", "1.2.3", "1.2.3.400", "1.2.3.4.5", "01.2.3.4", "1::2::3", "fe80::1%", "12345::", "::1:2:3:4:5:6:7:8", ":1", `a"b`, "1.2.3.x", ""} {
		_, err := netip.ParseAddr(s)
		if got, want := sentence.Of(fmt.Errorf("x: %w", err).Error()), "x: "+strconv.Quote(s)+address; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, s := range []string{"banana", "10.0.0.0/33", "x/24", "1.2.3/24", "10.0.0.0/a", "fe80::%a/64", "10.0.0.0/-1", "10.0.0.0/024", "::1::/64"} {
		_, err := netip.ParsePrefix(s)
		if got, want := sentence.Of(err.Error()), strconv.Quote(s)+prefix; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	_, _, cidr := net.ParseCIDR("10.0.0.0")
	_, atoi := strconv.Atoi("abc")
	_, large := strconv.ParseUint("99999", 10, 16)
	_, truth := strconv.ParseBool("perhaps")
	for err, want := range map[error]string{
		cidr: `"10.0.0.0"` + prefix, atoi: `"abc" is not a number`, large: `"99999" is too large or too small`, truth: `"perhaps" is neither true nor false`,
		errors.New("network app not found"):        "network app not found",
		fmt.Errorf("option a: %w (hint: b)", atoi): `option a: "abc" is not a number (hint: b)`,
	} {
		if got := sentence.Of(err.Error()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
