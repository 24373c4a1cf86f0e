package runtime

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// filterAnnotation makes crun take a compiled system call filter (an array of
// struct sock_filter, base64) instead of compiling the profile again, which
// takes it 20 ms of the 30 that a container takes (crun(1)).
const filterAnnotation = "run.oci.seccomp_bpf_data"

// maxFilter is the largest program that the kernel takes: BPF_MAXINSNS of 8 bytes.
const maxFilter = 4096 * 8

// Filter lets a spec use what the runtime compiled for an earlier container
// with the same profile. The profile stays in the spec, so a runtime that
// knows nothing of this is as strict as ever. The key goes into Create, which
// keeps the program when there was none; it is "" where nothing can be kept.
func (c *Client) Filter(r Runtime, s *specs.Spec) (key string) {
	c.runtimes.mu.Lock()
	build := c.runtimes.filters[r.Name]
	c.runtimes.mu.Unlock()
	if build == "" || s.Linux == nil || s.Linux.Seccomp == nil {
		return ""
	}
	profile, err := json.Marshal(s.Linux.Seccomp)
	if err != nil {
		return "" // the runtime will say it better
	}
	sum := sha256.Sum256(append(profile, build...))
	key = hex.EncodeToString(sum[:])
	program, err := os.ReadFile(c.filterFile(key))
	if err != nil || !isFilter(program) {
		return key
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[filterAnnotation] = base64.StdEncoding.EncodeToString(program)
	return key
}

// keepFilter keeps the program that crun left in a container's state.
func (c *Client) keepFilter(key string, r Runtime, id string) {
	if key == "" {
		return
	}
	if have, err := os.ReadFile(c.filterFile(key)); err == nil && isFilter(have) {
		return
	}
	program, err := os.ReadFile(filepath.Join(r.Root, id, "seccomp.bpf"))
	if err != nil || !isFilter(program) {
		return // it is one that keeps none
	}
	if err := c.writeFilter(key, program); err != nil {
		c.conf.Log.Warn("a compiled system call filter cannot be kept: starts are slower", "error", err)
	}
}

// writeFilter is atomic: a half written filter must never be read.
func (c *Client) writeFilter(key string, program []byte) error {
	file := c.filterFile(key)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "new-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(program)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

func (c *Client) filterFile(key string) string { return c.path(filepath.Join("filter", key)) }

// isFilter tells whole programs: full instructions, not too many, a return at the end.
func isFilter(b []byte) bool {
	const ret = 0x06 // BPF_RET|BPF_K
	return len(b) > 0 && len(b)%8 == 0 && len(b) <= maxFilter && bytes.HasPrefix(b[len(b)-8:], []byte{ret, 0})
}
