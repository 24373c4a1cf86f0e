package image

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridge gives containerd's packages a logger that ends in ours. They find it
// in their contexts. A few messages come without a context, through the global
// logger; that one is led to the log of the last Service opened.
func bridge(to *slog.Logger) *logrus.Entry {
	l := logrus.New()
	for _, l := range []*logrus.Logger{l, logrus.StandardLogger()} {
		l.SetOutput(io.Discard)
		hooks := logrus.LevelHooks{}
		hooks.Add(slogHook{to})
		l.ReplaceHooks(hooks)
	}
	l.SetLevel(logrus.DebugLevel)
	return logrus.NewEntry(l)
}

type slogHook struct{ to *slog.Logger }

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug // its warnings are about such things as file systems without fs-verity
	if e.Level <= logrus.ErrorLevel {
		level = slog.LevelWarn
	}
	if !h.to.Enabled(e.Context, level) {
		return nil
	}
	attrs := make([]slog.Attr, 0, len(e.Data)+1)
	attrs = append(attrs, slog.String("from", "containerd"))
	for k, v := range e.Data {
		attrs = append(attrs, slog.Any(k, v))
	}
	h.to.LogAttrs(e.Context, level, e.Message, attrs...)
	return nil
}
