package main

import (
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	askEvery   = time.Millisecond
	answerIn   = 100 * time.Millisecond // who has not answered by then does not know
	awaitLimit = 30 * time.Second
)

// await says when a name was answered, and when there was a connection to it. It asks
// at a rate, whatever becomes of the questions before: a server may wait for others to
// say that they do not know the name either.
func await(o options, target string) (r result, err error) {
	name, port, err := net.SplitHostPort(target)
	if err != nil {
		return r, err
	}
	at, err := o.awaitName(name)
	if err != nil {
		return r, err
	}
	r.Named = time.Now().UnixNano()
	for end := time.Now().Add(awaitLimit); time.Now().Before(end); {
		c, err := net.DialTimeout("tcp4", net.JoinHostPort(at, port), 20*time.Millisecond)
		if err == nil {
			r.Reached = time.Now().UnixNano()
			return r, c.Close()
		}
		time.Sleep(askEvery)
	}
	return r, fmt.Errorf("there is no connection to %s within %s", at, awaitLimit)
}

// awaitName is the address of a name, as soon as there is one.
func (o options) awaitName(name string) (string, error) {
	server, _, err := o.nameServer()
	if err != nil {
		return "", err
	}
	c, err := dns.Dial("udp", server)
	if err != nil {
		return "", err
	}
	defer c.Close()
	answer := make(chan string)
	go readAnswers(c, answer)
	for end := time.Now().Add(awaitLimit); time.Now().Before(end); {
		if err := c.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
			return "", err
		}
		select {
		case a := <-answer:
			return a, nil
		case <-time.After(askEvery):
		}
	}
	return "", fmt.Errorf("%s does not know %s within %s", server, name, awaitLimit)
}

// readAnswers gives the first address; it ends with the connection.
func readAnswers(c *dns.Conn, answer chan<- string) {
	for {
		m, err := c.ReadMsg()
		if err != nil {
			return
		}
		if a := firstAddress(m); a != "" {
			answer <- a
			return
		}
	}
}

func firstAddress(m *dns.Msg) string {
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String()
		}
	}
	return ""
}

// gone says when the first question was asked for which there was no address.
func gone(o options, name string) (r result, err error) {
	server, _, err := o.nameServer()
	if err != nil {
		return r, err
	}
	client := dns.Client{Timeout: answerIn}
	for end := time.Now().Add(awaitLimit); time.Now().Before(end); time.Sleep(askEvery) {
		asked := time.Now()
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), server)
		if err != nil || firstAddress(m) == "" {
			return result{Gone: asked.UnixNano()}, nil
		}
	}
	return r, fmt.Errorf("%s knows %s after %s", server, name, awaitLimit)
}
