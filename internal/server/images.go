package server

import (
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"

	"isle/internal/filters"
	"isle/internal/image"
)

var (
	imageFilters      = []string{"before", "dangling", "label", "label!", "reference", "since", "until"}
	imagePruneFilters = []string{"dangling", "label", "label!", "until"}
)

func (s *Server) imageList(a *answer, r *http.Request) error {
	q := queryOf(r)
	opts := image.ListOptions{All: q.bool("all"), Filters: q.filters(imageFilters...)}
	opts.SharedSize = q.bool("shared-size") && a.v >= 42
	opts.Manifests = q.bool("manifests") && a.v >= 47
	if q.err != nil {
		return q.err
	}
	if old := q.Get("filter"); old != "" && a.v < 41 {
		if opts.Filters == nil {
			opts.Filters = filters.Args{}
		}
		opts.Filters["reference"] = append(opts.Filters["reference"], old)
	}
	all, err := s.Backend.ImageList(r.Context(), opts)
	if err != nil {
		return err
	}
	return a.ok(imageSummaries(a.v, all))
}

func (s *Server) imageInspect(a *answer, r *http.Request, name string) error {
	q := queryOf(r)
	var opts image.InspectOptions
	if a.v >= 49 {
		opts.Platform = q.platform("platform")
	}
	opts.Manifests = q.bool("manifests") && a.v >= 48
	if q.err == nil && opts.Manifests && opts.Platform != nil {
		q.bad("conflicting options: manifests and platform options cannot both be set")
	}
	if q.err != nil {
		return q.err
	}
	m, err := s.Backend.ImageInspect(r.Context(), name, opts)
	if err != nil {
		return err
	}
	return a.ok(imageInspected(a.v, m))
}

func (s *Server) imageHistory(a *answer, r *http.Request, name string) error {
	q := queryOf(r)
	platform := q.platform("platform")
	if q.err != nil {
		return q.err
	}
	h, err := s.Backend.ImageHistory(r.Context(), name, platform)
	if err != nil {
		return err
	}
	return a.ok(list(h))
}

func (s *Server) imageTag(a *answer, r *http.Request, name string) error {
	q := queryOf(r)
	if q.err == nil && q.Get("repo") == "" {
		q.bad("invalid reference format: no repository was named")
	}
	if q.err != nil {
		return q.err
	}
	if err := s.Backend.ImageTag(r.Context(), name, tagged(q.Get("repo"), q.Get("tag"))); err != nil {
		return err
	}
	return a.empty(http.StatusCreated)
}

func (s *Server) imageRemove(a *answer, r *http.Request) error {
	q := queryOf(r)
	opts := image.RemoveOptions{Force: q.bool("force"), NoPrune: q.bool("noprune")}
	if a.v >= 50 {
		opts.Platforms = q.platforms("platforms")
	}
	if q.err != nil {
		return q.err
	}
	gone, err := s.Backend.ImageRemove(r.Context(), r.PathValue("id"), opts)
	if err != nil {
		return err
	}
	return a.ok(list(gone))
}

func (s *Server) imagesPrune(a *answer, r *http.Request) error {
	q := queryOf(r)
	f := q.filters(imagePruneFilters...)
	if q.err != nil {
		return q.err
	}
	rep, err := s.Backend.ImagesPrune(r.Context(), f)
	if err != nil {
		return err
	}
	return a.ok(rep)
}

func (s *Server) distribution(a *answer, r *http.Request, name string) error {
	d, err := s.Backend.Distribution(r.Context(), name, auth(r))
	if err != nil {
		return err
	}
	return a.ok(d)
}

// imageCreate is pull and import.
func (s *Server) imageCreate(a *answer, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	if q.Get("fromImage") != "" {
		return s.imagePull(a, r, q)
	}
	return s.imageImport(a, r, q)
}

func (s *Server) imagePull(a *answer, r *http.Request, q *query) error {
	p := &progress{a: a}
	ref := tagged(q.Get("fromImage"), q.Get("tag"))
	opts := image.PullOptions{Auth: auth(r), Progress: p.send, All: ref == withoutTag(ref)}
	if a.v >= 32 {
		opts.Platform = q.platform("platform")
	}
	if q.err != nil {
		return q.err
	}
	return p.end(s.Backend.ImagePull(r.Context(), ref, opts))
}

func (s *Server) imagePush(a *answer, r *http.Request, name string) error {
	q := queryOf(r)
	p := &progress{a: a}
	ref := tagged(name, q.Get("tag"))
	opts := image.PushOptions{Auth: auth(r), Progress: p.send, All: ref == withoutTag(ref)}
	if a.v >= 46 {
		opts.Platform = q.platform("platform")
	}
	if q.err != nil {
		return q.err
	}
	return p.end(s.Backend.ImagePush(r.Context(), ref, opts))
}

// tagged adds a tag, or a digest, to a name.
func tagged(name, tag string) string {
	switch {
	case tag == "":
		return name
	case strings.Contains(tag, ":"):
		return name + "@" + tag
	}
	return name + ":" + tag
}

func (s *Server) imageLoad(a *answer, r *http.Request) error {
	q := queryOf(r)
	p := &progress{a: a}
	opts := image.LoadOptions{Quiet: q.boolOr("quiet", true), Progress: p.send}
	if a.v >= 48 {
		opts.Platforms = q.platforms("platform")
	}
	if q.err != nil {
		return q.err
	}
	return p.end(s.Backend.ImageLoad(r.Context(), upload{r.Body}, opts))
}

func (s *Server) imageSave(a *answer, r *http.Request, name string) error {
	return s.save(a, r, []string{name})
}

func (s *Server) imagesSave(a *answer, r *http.Request) error {
	return s.save(a, r, r.URL.Query()["names"])
}

func (s *Server) save(a *answer, r *http.Request, names []string) error {
	q := queryOf(r)
	platforms := q.platforms("platform")
	if a.v < 48 {
		platforms = nil
	}
	if q.err == nil && len(names) == 0 {
		q.bad("no image was named")
	}
	if q.err != nil {
		return q.err
	}
	return s.Backend.ImageSave(r.Context(), names, platforms, lazy{a, tarType})
}

// imageImport makes an image of a root file system, from the body or a URL.
func (s *Server) imageImport(a *answer, r *http.Request, q *query) error {
	p := &progress{a: a}
	opts := image.ImportOptions{Message: q.Get("message"), Changes: q.Values["changes"], Platform: q.platform("platform")}
	if q.Get("repo") != "" {
		opts.Ref = tagged(q.Get("repo"), q.Get("tag"))
	}
	if q.err == nil && q.Get("fromSrc") == "" {
		q.bad("neither fromImage nor fromSrc was given")
	}
	if q.err != nil {
		return q.err
	}
	src, err := importSource(r, q.Get("fromSrc"), p)
	if err != nil {
		return p.end(err)
	}
	defer src.Close()
	imageID, err := s.Backend.ImageImport(r.Context(), src, opts)
	if err == nil {
		p.send(jsonstream.Message{Status: imageID})
	}
	return p.end(err)
}
