package engine

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// reserve gives name to id, or, when name is empty, a name that is free.
func (e *Engine) reserve(name, id string) (string, error) {
	name = strings.TrimPrefix(name, "/")
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byName == nil {
		e.byName, e.byID = map[string]string{}, map[string]*entry{}
	}
	if name == "" {
		name = e.freeNameLocked()
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	if holder, ok := e.byName[name]; ok {
		return "", conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
	}
	e.byName[name] = id
	return name, nil
}

// release takes a name back, when id is the one that has it.
func (e *Engine) release(name, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byName[name] == id {
		delete(e.byName, name)
	}
}

func (e *Engine) freeNameLocked() string {
	for n := 0; ; n++ {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + islands[rand.IntN(len(islands))]
		if n > 5 { // most of them are taken: a number makes room
			name = fmt.Sprint(name, rand.IntN(1000*n))
		}
		if _, taken := e.byName[name]; !taken {
			return name
		}
	}
}

// Names that people can say and remember: what an island can be, and islands.
var (
	adjectives = strings.Fields(`airy amber ancient azure balmy blithe bold brave breezy bright brisk calm candid cheery
		clear clever coastal coral cosy crisp curious dapper daring dewy distant eager early easy emerald fabled fair
		fancy fearless fertile festive fine fleet floral foggy fresh friendly gentle gleaming golden grand green happy
		hardy hazel hidden hilly humble jade jolly joyful keen kind lively lofty lone lovely lucid lucky lunar lush mellow
		merry mild misty modest mossy neat nimble noble opal open peaceful pearly placid plucky polar proud quaint quick
		quiet radiant rocky rosy royal ruby rugged rustic sandy sedate serene sheltered shiny silent silver sleepy smooth
		snowy snug solar sparkling spry steady stoic stormy sunny swift tall tender tidal tidy tranquil tropical upbeat
		valiant velvet verdant vivid warm wild wise witty wooded young zesty`)
	islands = strings.Fields(`achill aland alderney amorgos andros anglesey antigua aran arran aruba ascension azores
		baffin bali barbados barra bermuda bonaire borneo bornholm bute canna capri cebu ceylon chiloe coll corfu corsica
		crete curacao cyprus delos djerba dominica elba ellesmere ertholm euboea faial falster fano faroe fiji flores
		formosa foula frisia funen fyn gotland gozo grenada guam guernsey hainan harris hawaii helgoland hiddensee hokkaido
		honshu hvar hydra ibiza iceland iona islay ischia jamaica java jersey jura kauai kea kos krk kyushu lanzarote
		lefkada lesbos lewis lipari lolland lombok luzon lundy madeira mahe majorca maldive malta man martinique maui
		mauritius melos menorca milos molokai montserrat moorea mull mykonos naxos nevis oahu oland orkney palau palawan
		palma paros patmos paxos pemba phuket pico ponza rab raasay reunion rhodes roatan rona rousay rugen rum saba samoa
		samos santorini sardinia sark scilly seil senja shetland shikoku sicily skomer skopelos skye skyros socotra
		staffa stromboli sulawesi sumatra sylt symi tahiti tasmania texel thasos timor tinos tiree tobago tonga tortola
		trinidad tristan tuvalu uist unst ushant usedom vis wight yell zakynthos zanzibar`)
)
