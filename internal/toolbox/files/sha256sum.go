package files

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"isle/internal/toolbox/applet"
)

// Sha256sum prints digests, and with -c checks them.
func Sha256sum(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "sha256sum [-c] [FILE…]")
	check := fs.BoolP("check", "c", false, "read digests and names from the files and check them")
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	return applet.Each(s, fs.Args(), func(name string, r io.Reader) error {
		if *check {
			return checkSums(s, r)
		}
		sum, err := digest(r)
		if err == nil {
			fmt.Fprintf(s.Out, "%s  %s\n", sum, name)
		}
		return err
	})
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

func checkSums(s applet.IO, r io.Reader) error {
	bad := 0
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		want, name, ok := strings.Cut(sc.Text(), "  ")
		if !ok {
			continue
		}
		result := "OK"
		if got, err := digestFile(name); err != nil || got != want {
			result = "FAILED"
			bad++
		}
		fmt.Fprintf(s.Out, "%s: %s\n", name, result)
	}
	if bad > 0 {
		return errors.Join(fmt.Errorf("%d digests do not match", bad), sc.Err())
	}
	return sc.Err()
}

func digestFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest(f)
}
