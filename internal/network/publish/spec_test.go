package publish_test

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/network/publish"
)

// TestSpec: what people write, and how it is written back.
func TestSpec(t *testing.T) {
	for in, want := range map[string]string{
		"80":                             ":80/tcp",
		"80/udp":                         ":80/udp",
		":80":                            ":80/tcp",
		"8080:80":                        "8080:80/tcp",
		"127.0.0.1:8080:80/udp":          "127.0.0.1:8080:80/udp",
		"127.0.0.1::80":                  "127.0.0.1::80/tcp",
		"[::1]:8080:80":                  "[::1]:8080:80/tcp",
		"[::ffff:10.0.0.1]:8080:80":      "10.0.0.1:8080:80/tcp",
		"if=eth0:80:80":                  "if=eth0:80:80/tcp",
		"if=eth0::80/sctp":               "if=eth0::80/sctp",
		"if=eth0:80":                     "", // a host port alone
		"8000-8010:80-90":                "8000-8010:80-90/tcp",
		"8080:80;from=10.1.2.3/8":        "8080:80/tcp;from=10.0.0.0/8",
		"80:80;from=fd00::/8,10.0.0.1":   "80:80/tcp;from=10.0.0.1/32,fd00::/8",
		"80:80;from=10.0.0.0/8,10.1.1.1": "80:80/tcp;from=10.0.0.0/8",
		"":                               "",
		"x":                              "",
		"0:80":                           ":80/tcp",
		"80:0":                           "",
		"80:80/icmp":                     "",
		"70000:80":                       "",
		"8000-8010:80":                   "",
		"80-81":                          "",
		"::1:80:80":                      "",
		"1.2.3.4.5:80:80":                "",
		"[fe80::1%eth0]:8:80":            "",
		"if=:80:80":                      "",
		"if=lo:80:80":                    "",
		"if=a/b:80:80":                   "",
		"if=sixteencharacters:80:80":     "",
		"if=üüüüüüü:80:80":               "if=üüüüüüü:80:80/tcp",
		"if=üüüüüüüü:80:80":              "", // of 16 bytes
		"if=a\x00b:80:80":                "",
		"80:80;":                         "",
		"80:80;from=":                    "",
		"80:80;to=10.0.0.0/8":            "",
		"80:80;from=10.0.0.0/33":         "",
		"80:80;from=::ffff:10.0.0.0/104": "",
	} {
		s, err := publish.ParseSpec(in)
		if want == "" {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v, %v; it is no port", in, s, err)
			}
			continue
		}
		if err != nil || s.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, s, err, want)
		}
		if again, err := publish.ParseSpec(s.String()); err != nil || again != s {
			t.Errorf("%q is read back as %+v, %v", s, again, err)
		}
	}
}

// TestSpecSaysOnce: what is wrong, once.
func TestSpecSaysOnce(t *testing.T) {
	for in, want := range map[string]string{
		"80/icmp":         `invalid port "80/icmp": its protocol must be tcp, udp or sctp: invalid argument`,
		"x:80":            `invalid port "x:80": invalid host port "x": invalid argument`,
		"80:80;from=here": `invalid port "80:80;from=here": invalid source "here": it must be an address or a prefix such as 10.0.0.0/8: invalid argument`,
	} {
		if _, err := publish.ParseSpec(in); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func FuzzSpec(f *testing.F) {
	f.Add("if=eth0:8000-8010:80-90/udp;from=10.0.0.0/8,fd00::/8")
	f.Add("[::1]::80")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := publish.ParseSpec(in)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: error without a class: %v", in, err)
			}
			return
		}
		if again, err := publish.ParseSpec(s.String()); err != nil || again != s {
			t.Errorf("%q is read back as %+v, %v", s, again, err)
		}
		_, _ = publish.Parse(nil, []publish.Spec{s}, publish.Defaults{IPv6: true})
	})
}

// TestSelector: what of published ports is meant.
func TestSelector(t *testing.T) {
	have := []publish.Mapping{
		{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 8000, Count: 10, ContainerPort: 80},
		{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 9000, Count: 1, ContainerPort: 90},
		{Proto: "udp", HostIP: ip("::"), HostPort: 8000, Count: 1, ContainerPort: 53},
		{Proto: "tcp", HostIP: ip("0.0.0.0"), Iface: "eth0", HostPort: 9000, Count: 1, ContainerPort: 91},
	}
	for in, want := range map[string]string{
		"8000":           "[{tcp 0.0.0.0  8000 1 80 }]",
		"8003-8004":      "[{tcp 0.0.0.0  8003 2 83 }]",
		"8009-9000":      "[{tcp 0.0.0.0  8009 1 89 } {tcp 127.0.0.1  9000 1 90 } {tcp 0.0.0.0 eth0 9000 1 91 }]",
		"127.0.0.1:9000": "[{tcp 127.0.0.1  9000 1 90 }]",
		"if=eth0:9000":   "[{tcp 0.0.0.0 eth0 9000 1 91 }]",
		"0.0.0.0:9000":   "[]",
		"8000/udp":       "[{udp ::  8000 1 53 }]",
		"[::]:8000/udp":  "[{udp ::  8000 1 53 }]",
		"53/udp":         "[]", // the container's port is not meant
	} {
		s, err := publish.ParseSelector(in)
		if err != nil || fmt.Sprint(s.Select(have)) != want {
			t.Errorf("%q: %v, %v; want %s", in, s.Select(have), err, want)
		}
	}
	for in, hint := range map[string]string{
		"0.0.0.0:9000":   "container web does not publish 0.0.0.0:9000/tcp (hint: it publishes 127.0.0.1:9000/tcp, if=eth0:9000/tcp): not found",
		"8000-8001/sctp": "container web does not publish 8000-8001/sctp (hint: it publishes 0.0.0.0:8000-8001/tcp, [::]:8000/udp): not found",
		"99":             "container web does not publish 99/tcp: not found",
	} {
		s, err := publish.ParseSelector(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Missing("web", have); !errdefs.IsNotFound(err) || err.Error() != hint {
			t.Errorf("%s: %v, want %s", in, err, hint)
		}
	}
	for _, bad := range []string{"", "x", "0", "1:2:3", "::1:80", "80-70", "if=eth0", "1.2.3.4"} {
		if s, err := publish.ParseSelector(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
}
