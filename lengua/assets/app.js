// The voice of the conversation mode: it reads a reply aloud, sentence by sentence, and the microphone is closed
// meanwhile, so that the page does not hear itself. Also what the line of the mode tells before the server does.
//
// The server gives the line as {state, text, reply, sentences, voices}: `reply` names a reply, and its sentences only
// ever grow; another name, or none, silences the one before.

globalThis.lengua ||= (() => {
  const BUSY = ["understanding", "thinking", "replying"];
  const JUST_MS = 500;
  const SAME = { __type__: "update" };

  class Voice {
    constructor(synthesis, changed) {
      this.synthesis = synthesis;
      this.changed = changed; // called when it begins or ends to speak
      this.aloud = true;
      this.reply = "";
      this.given = 0; // sentences of the reply that were taken on
      this.waiting = new Set(); // utterances; browsers drop those that nobody holds, and then never end
      synthesis?.getVoices(); // some browsers only begin to load them now
    }

    get speaking() {
      return this.waiting.size > 0;
    }

    follow(line) {
      const reply = line.reply || "";
      if (reply !== this.reply) {
        this.stop();
        this.reply = reply;
        this.given = 0;
      }
      const sentences = line.sentences || [];
      const fresh = sentences.slice(this.given);
      this.given = Math.max(this.given, sentences.length);
      if (!this.aloud || !this.synthesis || !fresh.length) return;
      const voice = chosen(this.synthesis.getVoices(), line.voices || []);
      if (voice) fresh.forEach((text) => this.say(text, voice));
    }

    say(text, voice) {
      const utterance = new SpeechSynthesisUtterance(text);
      utterance.voice = voice;
      utterance.lang = voice.lang;
      utterance.onend = utterance.onerror = () => this.done(utterance);
      this.waiting.add(utterance);
      this.synthesis.speak(utterance);
      if (this.waiting.size === 1) this.watch();
      this.changed();
    }

    done(utterance) {
      if (!this.waiting.delete(utterance)) return;
      this.watch();
      this.changed();
    }

    // Some browsers take an utterance and never say a word, nor that they failed. The microphone must open all the same.
    watch() {
      clearTimeout(this.timer);
      const [next] = this.waiting;
      if (next) this.timer = setTimeout(() => this.stop(), 5000 + 150 * next.text.length);
    }

    // Say no more of this reply.
    stop() {
      const spoke = this.speaking;
      this.waiting.clear();
      clearTimeout(this.timer);
      this.given = Infinity;
      if (!spoke) return;
      this.synthesis.cancel();
      this.changed();
    }
  }

  // The voice whose language is first in the wishes: es-AR, es-419, ..., es. None is better than one of another language.
  function chosen(voices, wishes) {
    const named = voices.map((voice) => [voice.lang.replace("_", "-").toLowerCase(), voice]);
    for (const wish of wishes.map((one) => one.toLowerCase())) {
      const fitting = named.filter(([lang]) => lang === wish || lang.startsWith(wish + "-")).map(([, voice]) => voice);
      if (fitting.length) return fitting.find((voice) => voice.default) || fitting[0];
    }
    return null;
  }

  // Connects the line of the mode. `languages` are its sentences by language, escaped.
  function connect(element, props, watch, languages) {
    const words = languages[navigator.language.slice(0, 2)] || languages.en;
    const voice = new Voice(window.speechSynthesis, paint);
    let since = null; // when the server began to be at work
    let turn = 0; // numbers what is asked of the server, so that it knows which of it to stop

    // Whether the server is at work on a turn: then there is nothing to do but to stop it.
    function busy() {
      return BUSY.includes((props.value || {}).state);
    }

    // Shows that the voice speaks; closes the microphone while it does, and what begins a turn while one goes on.
    function paint() {
      const value = props.value || {};
      const state = voice.speaking && value.state !== "failed" ? "speaking" : value.state || "ready";
      const text = state === "speaking" ? words.speaking : value.text || words.ready;
      const shown = element.querySelector("[role=status]");
      if (shown && (shown.dataset.state !== state || shown.firstElementChild.innerHTML !== text)) {
        shown.dataset.state = state;
        shown.firstElementChild.innerHTML = text;
      }
      since = busy() ? (since ?? performance.now()) : null;
      for (const id of ["talk-recorder", "talk-turns"]) {
        const part = document.getElementById(id);
        if (part) part.inert = busy() || (voice.speaking && id === "talk-recorder");
      }
    }

    function line(state, text) {
      return { state, text: text || words[state], reply: "", sentences: [], voices: [] };
    }

    // Neither Enter in the box nor a suggestion begins a second turn; the second click of two does not stop the first.
    function hold(event) {
      if (!busy() || (event.type !== "click" && event.key !== "Enter")) return;
      const second = event.detail > 1 && performance.now() - since < JUST_MS ? ", #talk-stop" : "";
      const held = event.type === "click" ? `.example, #talk-send${second}` : "#talk-message";
      if (!event.target.closest?.(`#talk :is(${held})`)) return;
      event.preventDefault();
      event.stopPropagation();
    }
    for (const kind of ["click", "keydown", "keypress"]) document.addEventListener(kind, hold, true);

    // A microphone that opens anywhere on the page ends the voice; one that may not open says so.
    const devices = navigator.mediaDevices;
    if (devices?.getUserMedia) {
      const ask = devices.getUserMedia.bind(devices);
      devices.getUserMedia = (wish) => {
        voice.stop();
        return ask(wish).catch((error) => {
          const refused = ["NotAllowedError", "SecurityError"].includes(error.name);
          const here = document.getElementById("talk")?.offsetParent;
          if (here) props.value = line("failed", refused ? words.microphone : words.no_microphone);
          throw error;
        });
      };
    }
    // Gradio calls its suggestions a list and gives it no items, which a screen reader stumbles over.
    function tidy() {
      document.querySelector("#talk-chat .examples[role]")?.removeAttribute("role");
    }
    new MutationObserver(tidy).observe(document.getElementById("talk"), { childList: true, subtree: true });
    tidy();

    window.addEventListener("pagehide", () => voice.stop());
    watch("value", () => {
      voice.follow(props.value || {});
      paint();
    });
    Object.assign(globalThis.lengua, {
      hearing: () => line("hearing"),
      recorded: () => [line("understanding"), ++turn],
      sending: (text) => (text.trim() ? [line("thinking"), ++turn] : [SAME, SAME]),
      asking: () => [line("thinking"), ++turn],
      failed: () => line("failed"),
      aloud: (on) => {
        voice.aloud = on;
        if (!on) voice.stop();
      },
    });
    paint();
  }

  return { Voice, chosen, connect };
})();
