package main

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// warm is how long streams run before they are counted.
const warm = 200 * time.Millisecond

// stream fills connections with bytes. The CPU time is the whole machine's: the
// work of a network is done in interrupts, which belong to no process.
func stream(o options, addr string) (result, error) {
	var sent atomic.Int64
	ended := make(chan error, o.streams)
	for range o.streams {
		c, err := net.DialTimeout("tcp4", addr, time.Second)
		if err != nil {
			return result{}, err
		}
		defer c.Close()
		go func() { ended <- fill(c, &sent) }()
	}
	if err := still(ended, warm); err != nil {
		return result{}, err
	}
	busy, bytes, start := busyCPU(), sent.Load(), time.Now()
	if err := still(ended, o.time); err != nil {
		return result{}, err
	}
	took := time.Since(start).Seconds()
	gb := float64(sent.Load()-bytes) / 1e9
	if gb == 0 {
		return result{}, errors.New("no byte got through")
	}
	return result{Rate: 8 * gb / took, CPU: (busyCPU() - busy).Seconds() / gb}, nil
}

// still waits for d, or for the first connection that ends, which none should.
func still(ended <-chan error, d time.Duration) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(d):
		return nil
	}
}

func fill(c net.Conn, sent *atomic.Int64) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := c.Write(buf)
		sent.Add(int64(n))
		if err != nil {
			return err
		}
	}
}
