package undo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"isle/internal/undo"
)

func TestUnwind(t *testing.T) {
	var log []string
	ctx, cancel := context.WithCancel(t.Context())
	op := func() (err error) {
		var u undo.Stack
		defer u.Unwind(ctx, &err)
		for i := range 3 {
			u.Push(fmt.Sprint("step ", i), func(ctx context.Context) error {
				log = append(log, fmt.Sprint(i, ctx.Err()))
				if i == 1 {
					return errors.New("busy")
				}
				return nil
			})
		}
		cancel()
		return errors.New("boom")
	}
	err := op()
	if got, want := fmt.Sprint(log), "[2 <nil> 1 <nil> 0 <nil>]"; got != want {
		t.Errorf("undone %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(err), "boom\nundo step 1: busy"; got != want {
		t.Errorf("err = %q, want %q", got, want)
	}
}
