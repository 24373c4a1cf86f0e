package main

import (
	"testing"

	"github.com/miekg/dns"
)

func TestUpstreamAnswers(t *testing.T) {
	for _, c := range []struct {
		qtype uint16
		want  string
	}{{dns.TypeA, "192.0.2.1"}, {dns.TypeAAAA, ""}} {
		ask, err := new(dns.Msg).SetQuestion("0000000a.out.example.", c.qtype).Pack()
		if err != nil {
			t.Fatal(err)
		}
		var got dns.Msg
		if err := got.Unpack(answer(ask)); err != nil {
			t.Fatal(err)
		}
		if !got.Response || got.Question[0].Name != "0000000a.out.example." {
			t.Errorf("not an answer to the question: %v", got)
		}
		have := ""
		for _, rr := range got.Answer {
			have += rr.(*dns.A).A.String()
		}
		if have != c.want {
			t.Errorf("type %d: %q, want %q", c.qtype, have, c.want)
		}
	}
}

func TestUpstreamSkipsWhatIsNoQuestion(t *testing.T) {
	for _, p := range [][]byte{nil, make([]byte, 12), {0, 0, 0x80, 17: 0}, append(make([]byte, 12), 63, 1, 2, 3, 4, 5)} {
		if a := answer(p); a != nil {
			t.Errorf("answer to %v: %v", p, a)
		}
	}
}

func TestFreshNamesDiffer(t *testing.T) {
	a := asker{name: "out.example.", fresh: true}
	ask, err := a.question()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 300 {
		a.next(ask)
		var m dns.Msg
		if err := m.Unpack(ask); err != nil {
			t.Fatal(err)
		}
		seen[m.Question[0].Name] = true
	}
	if len(seen) != 300 {
		t.Errorf("%d names of 300 questions", len(seen))
	}
}
