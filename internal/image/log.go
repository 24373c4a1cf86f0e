package image

import (
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridge gives containerd's packages a logger that ends in ours. It is put in
// their contexts; nothing global is changed. What they call information is of
// interest only to who debugs.
func bridge(to *slog.Logger) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.DebugLevel)
	l.AddHook(slogHook{to})
	return logrus.NewEntry(l)
}

type slogHook struct{ to *slog.Logger }

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.WarnLevel {
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
