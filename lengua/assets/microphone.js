// Of the state line (lengua.app.microphone): what only the browser knows, such as a microphone that may not be used.
// Gradio gives `element` and `props`; `words` are the sentences by language, `most` the bytes of the biggest file.
const messages = words[navigator.language.slice(0, 2)] || words.en;
const devices = navigator.mediaDevices;
const say = (sentence) => {
    if (element.offsetParent) props.value = sentence;
};

// Gradio's recorder leaves a microphone that is missing or refused to the console.
if (devices && !devices.watched) {
    devices.watched = true;
    const ask = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (wish) => ask(wish).catch((error) => {
        const kind = ["NotAllowedError", "SecurityError"].includes(error.name) ? "refused" : "missing";
        window.dispatchEvent(new CustomEvent("lengua:no-microphone", {detail: kind}));
        throw error;
    });
}
window.addEventListener("lengua:no-microphone", (event) => say(messages[event.detail]));

// Nor does it say that a recording was too short to be one: the state line would go on hearing for ever.
const sound = window.BaseAudioContext?.prototype;
if (sound && !sound.watched) {
    sound.watched = true;
    const decode = sound.decodeAudioData;
    sound.decodeAudioData = function (...given) {
        return decode.apply(this, given)?.catch((error) => {
            window.dispatchEvent(new CustomEvent("lengua:unreadable"));
            throw error;
        });
    };
}
window.addEventListener("lengua:unreadable", () => {
    if ([messages.hearing, messages.sending].includes(props.value)) say(messages.too_short);
});
document.addEventListener("click", (event) => {
    if (event.target.closest?.("#recorder .stop-button, #recorder .stop-button-paused")) say(messages.sending);
}, true);

// A file that is too big is refused before it is sent, and not after; the state of one that is sent is shown meanwhile.
document.addEventListener("change", (event) => {
    const file = event.target.type === "file" && element.offsetParent && event.target.files[0];
    if (!file) return;
    say(file.size > most ? messages.too_big : messages.sending);
    if (file.size > most) {
        event.stopImmediatePropagation();
        event.target.value = "";
    }
}, true);

// The player's button for subtitles has no name that a screen reader could tell.
new MutationObserver(() => {
    for (const button of document.querySelectorAll(".cc-button:not([aria-label])")) {
        button.setAttribute("aria-label", messages.subtitles);
    }
}).observe(document.body, {childList: true, subtree: true});
