package portal

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed assets/*
var assets embed.FS

// files are the assets by URL. Each has its digest in it, so that browsers may keep it for ever.
var files, assetURLs = digestAssets()

func digestAssets() (files map[string][]byte, urls map[string]string) {
	files, urls = make(map[string][]byte), make(map[string]string)
	entries, err := assets.ReadDir("assets")
	if err != nil {
		panic("portal: " + err.Error()) // it is part of the program
	}
	for _, e := range entries {
		content, err := assets.ReadFile("assets/" + e.Name())
		if err != nil {
			panic("portal: " + err.Error())
		}
		sum := sha256.Sum256(content)
		url := "/assets/" + hex.EncodeToString(sum[:8]) + "/" + e.Name()
		files[url], urls[e.Name()] = content, url
	}
	return files, urls
}

func assetURL(name string) string { return assetURLs[name] }

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	content, ok := files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, path.Base(r.URL.Path), time.Time{}, bytes.NewReader(content))
}
