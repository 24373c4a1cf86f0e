package network

import (
	"testing"
	"time"
)

// TestPace: alarms that come every 10 ms for a minute.
func TestPace(t *testing.T) {
	for _, tt := range []struct {
		cost        time.Duration
		least, most int
		longest     time.Duration
	}{
		{cost: 0, least: 1500, most: 2500, longest: pauseFirst},
		{cost: 3 * time.Millisecond, least: 700, most: 1000, longest: 60 * time.Millisecond},
		{cost: 500 * time.Millisecond, least: 20, most: 30, longest: pauseMost},
	} {
		now := time.Unix(1e9, 0)
		var p pace
		repairs := 0
		for end := now.Add(time.Minute); now.Before(end); repairs++ {
			wait := p.wait(now)
			if repairs == 0 && wait != 0 {
				t.Error("the first repair waits")
			}
			if wait > tt.longest {
				t.Errorf("cost %v: a pause of %v", tt.cost, wait)
			}
			begin := now.Add(wait)
			now = begin.Add(tt.cost)
			p.done(begin, now)
			now = now.Add(10 * time.Millisecond)
		}
		if repairs < tt.least || repairs > tt.most {
			t.Errorf("cost %v: %d repairs in a minute, want %d to %d", tt.cost, repairs, tt.least, tt.most)
		}
		if now = now.Add(2 * pauseMost); p.wait(now) != 0 {
			t.Errorf("cost %v: after a quiet time the next one waits", tt.cost)
		}
	}
}
