package engine

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/runtime"
	"isle/internal/runtime/jsonlog"
)

// Log drivers: "json-file"; "local" is kept in the same format with the
// rotation that Docker's has by default; "none".
const (
	logJSON  = "json-file"
	logLocal = "local"
	logNone  = "none"
)

const rfc3339NanoFixed = "2006-01-02T15:04:05.000000000Z07:00"

var logOptions = []string{"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}

func checkLog(_ apitypes.Config, h apitypes.HostConfig) error {
	switch h.LogConfig.Type {
	case logNone:
		return nil
	case logJSON, logLocal:
	default:
		return invalid("logger: no log driver named '%s' is registered", h.LogConfig.Type)
	}
	for k := range h.LogConfig.Config {
		if !slices.Contains(logOptions, k) {
			return invalid("unknown log opt '%s' for %s log driver", k, h.LogConfig.Type)
		}
	}
	_, err := logLimits(h.LogConfig)
	return err
}

// logLimits reads the options about files.
func logLimits(c apitypes.LogConfig) (l runtime.Log, err error) {
	l = runtime.Log{MaxFile: 1}
	if c.Type == logLocal {
		l = runtime.Log{MaxSize: 20 << 20, MaxFile: 5, Compress: true}
	}
	if s, ok := c.Config["max-size"]; ok && s != "-1" {
		if l.MaxSize, err = units.RAMInBytes(s); err != nil || l.MaxSize <= 0 {
			return l, invalid("invalid value for max-size: %s", s)
		}
	}
	if s, ok := c.Config["max-file"]; ok {
		if l.MaxFile, err = strconv.Atoi(s); err != nil || l.MaxFile < 1 {
			return l, invalid("max-file cannot be less than 1")
		}
		if l.MaxSize == 0 && l.MaxFile > 1 {
			return l, invalid("max-file is set but max-size is not: logs are rotated by size")
		}
	}
	if s, ok := c.Config["compress"]; ok {
		if l.Compress, err = strconv.ParseBool(s); err != nil {
			return l, invalid("invalid value for compress: %s", s)
		}
		if l.Compress && (l.MaxFile < 2 || l.MaxSize == 0) {
			return l, invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
	}
	return l, nil
}

// logOf is where the output of a container goes besides attached clients.
func (e *Engine) logOf(rec container.Record) (runtime.Log, error) {
	if !readable(rec) {
		return runtime.Log{}, nil
	}
	l, err := logLimits(rec.Host.LogConfig)
	if err != nil {
		return l, err
	}
	l.Path = e.logPath(rec.ID)
	l.Attrs, err = logAttrs(rec)
	return l, err
}

// logAttrs are the labels, variables and tag that go with every line.
func logAttrs(rec container.Record) (map[string]string, error) {
	opts := rec.Host.LogConfig.Config
	attrs := map[string]string{}
	if err := pick(attrs, rec.Config.Labels, opts["labels"], opts["labels-regex"]); err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, kv := range rec.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	if err := pick(attrs, env, opts["env"], opts["env-regex"]); err != nil {
		return nil, err
	}
	if t := opts["tag"]; t != "" {
		tag, err := logTag(t, rec)
		if err != nil {
			return nil, err
		}
		attrs["tag"] = tag
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}

func pick(to, from map[string]string, names, pattern string) error {
	for n := range strings.SplitSeq(names, ",") {
		if v, ok := from[n]; ok && n != "" {
			to[n] = v
		}
	}
	if pattern == "" {
		return nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return invalid("invalid log option: %s", err)
	}
	for k, v := range from {
		if re.MatchString(k) {
			to[k] = v
		}
	}
	return nil
}

// tagged is what a tag's template can name.
type tagged struct{ rec container.Record }

func (t tagged) ID() string          { return ids.Short(t.rec.ID) }
func (t tagged) FullID() string      { return t.rec.ID }
func (t tagged) Name() string        { return t.rec.Name }
func (t tagged) ImageName() string   { return t.rec.Image }
func (t tagged) ImageID() string     { return ids.Short(strings.TrimPrefix(t.rec.ImageID, "sha256:")) }
func (t tagged) ImageFullID() string { return t.rec.ImageID }
func (t tagged) DaemonName() string  { return "isle" }
func (t tagged) Hostname() string    { h, _ := os.Hostname(); return h }
func (t tagged) Command() string     { return commandText(append([]string{t.rec.Path}, t.rec.Args...)) }

func logTag(text string, rec container.Record) (string, error) {
	t, err := template.New("tag").Parse(text)
	if err != nil {
		return "", invalid("invalid log tag: %s", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, tagged{rec}); err != nil {
		return "", invalid("invalid log tag: %s", err)
	}
	return b.String(), nil
}

// readable reports whether the container's log can be read again.
func readable(rec container.Record) bool {
	return rec.Host.LogConfig.Type == logJSON || rec.Host.LogConfig.Type == logLocal
}

// ContainerLogs gives lines of the log. With Follow it goes on until the
// container has stopped and its last byte is given.
func (e *Engine) ContainerLogs(ctx context.Context, ref string, opts container.LogsOptions) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if !opts.Stdout && !opts.Stderr {
		return invalid("You must choose at least one stream")
	}
	rec := c.snapshot()
	if !readable(rec) {
		return &classed{"configured logging driver does not support reading", errdefs.ErrNotImplemented}
	}
	var over <-chan struct{}
	if opts.Follow {
		over = c.over()
		opts.Follow = over != nil
	}
	return e.readLog(ctx, rec, opts, opts.Streams(rec.Config.Tty), over)
}

// readLog copies lines of the log. over tells that no more will be written.
func (e *Engine) readLog(ctx context.Context, rec container.Record, opts container.LogsOptions, s container.Streams, over <-chan struct{}) error {
	ro := jsonlog.Options{Tail: opts.Tail, Since: opts.Since, Until: opts.Until, Follow: opts.Follow, Done: over}
	err := jsonlog.Read(ctx, e.logPath(rec.ID), ro, func(entry jsonlog.Entry) error {
		w := streamOf(entry.Stream, opts, s)
		if w == nil {
			return nil
		}
		if _, err := w.Write(logLine(entry, opts)); err != nil {
			return fmt.Errorf("log to the client: %w", err)
		}
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func streamOf(name string, opts container.LogsOptions, s container.Streams) io.Writer {
	switch {
	case name == "stderr" && opts.Stderr:
		if s.Err == nil {
			return s.Out
		}
		return s.Err
	case name != "stderr" && opts.Stdout:
		return s.Out
	}
	return nil
}

// logLine is one write: the pieces of a line must not be torn apart by a frame
// of the other stream.
func logLine(entry jsonlog.Entry, opts container.LogsOptions) []byte {
	var b []byte
	if opts.Timestamps {
		b = append(entry.Time.UTC().AppendFormat(b, rfc3339NanoFixed), ' ')
	}
	if opts.Details {
		b = append(append(b, details(entry.Attrs)...), ' ')
	}
	return append(b, entry.Line...)
}

func details(attrs map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		parts = append(parts, url.QueryEscape(k)+"="+url.QueryEscape(attrs[k]))
	}
	return strings.Join(parts, ",")
}
