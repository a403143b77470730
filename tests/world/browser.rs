//! A browser: Chromium without a window, driven over the `DevTools` protocol through a pair of pipes.
//!
//! The protocol's pipes are the descriptors 3 and 4; a shell puts its own input and output there, so that neither a web socket nor another
//! program is needed. Messages are JSON, each ended by a zero byte.
//!
//! Invariant: what a page is asked, it is asked as a person would: keys, the texts on it, pictures of it. A fault that the page's own
//! script meets is kept, and [`Page::faults`] gives it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::needs::CHROMIUM;
use crate::wait::Deadline;

/// How long the browser may take to answer, and a page to show something.
const LIMIT: Duration = Duration::from_mins(1);

/// A browser with one page; it ends with its value.
#[derive(Debug)]
pub struct Page {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
    session: String,
    last_id: u64,
    faults: Vec<String>,
}

/// What a picture is taken as.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// For the file's name.
    pub name: &'static str,
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
}

/// A tablet held upright.
pub const TABLET: Screen = Screen { name: "tablet", width: 768, height: 1024 };
/// A desktop.
pub const DESKTOP: Screen = Screen { name: "desktop", width: 1440, height: 900 };
/// A phone.
pub const PHONE: Screen = Screen { name: "phone", width: 390, height: 844 };

impl Page {
    /// A browser with an empty page.
    pub async fn new() -> Self {
        let profile = tempfile::tempdir().expect("a directory for the browser");
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            // A name for a foreign origin and for a rebound one, without a name server.
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
        ];
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(CHROMIUM.path())
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell starts");
        let input = child.stdin.take().expect("its input is a pipe");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut page =
            Self { child, input, output, _profile: profile, session: String::new(), last_id: 0, faults: Vec::new() };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            page.call(domain, json!({})).await;
        }
        page
    }

    /// A command of the protocol, and its answer; panics where the browser refuses it or does not answer.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .await
            .unwrap_or_else(|error| panic!("the browser is gone before {method}: {error}"));
        loop {
            let answer = tokio::time::timeout(LIMIT, self.hear()).await;
            let answer = answer.unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            if answer["id"] == self.last_id {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    async fn hear(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.output.read_until(0, &mut bytes).await.expect("reading from the browser");
        assert_eq!(bytes.pop(), Some(0), "the browser ended: {:?}", self.child.try_wait());
        serde_json::from_slice(&bytes).expect("the browser speaks JSON")
    }

    /// Keeps what the page's own script did wrong, and what its policy forbade.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.faults.push(params["exceptionDetails"]["exception"]["description"].to_string());
            }
            Some("Log.entryAdded")
                if params["entry"]["source"] == "security" || params["entry"]["source"] == "javascript" =>
            {
                self.faults.push(params["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    /// What the page's script did wrong so far.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Opens an address.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// What an expression gives in the page; promises are waited for.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds.
    pub async fn until(&mut self, expression: &str) {
        let deadline = Deadline::new(LIMIT);
        // A page that is being replaced has nothing to ask yet.
        let guarded = format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        while self.eval(&guarded).await != true {
            if !deadline.rest().await {
                let text = self.eval("document.body.innerText").await;
                panic!(
                    "In vain: {expression}. The page says:\n{}\n{:?}",
                    text.as_str().unwrap_or_default(),
                    self.faults
                );
            }
        }
    }

    /// Waits until the browser's log names something that it forbade, and takes it off the faults.
    pub async fn until_fault(&mut self, text: &str) {
        let deadline = Deadline::new(LIMIT);
        while !self.faults.iter().any(|fault| fault.contains(text)) {
            self.eval("true").await;
            deadline.rest_for(&format!("the browser to forbid {text}; so far: {:?}", self.faults)).await;
        }
        self.faults.retain(|fault| !fault.contains(text));
    }

    /// Waits until a text stands on the page.
    pub async fn shows(&mut self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// The text of an element.
    pub async fn text(&mut self, id: &str) -> String {
        let text = self.eval(&format!("document.getElementById({})?.innerText", json!(id))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, an arrow.
    pub async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            _ => panic!("{key} is a key that this keyboard does not have"),
        };
        let of =
            |kind: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", of(if text.is_empty() { "rawKeyDown" } else { "keyDown" })).await;
        self.call("Input.dispatchKeyEvent", of("keyUp")).await;
    }

    /// Types a text where the focus is.
    pub async fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses Tab until the focus is on an element that a selector matches; panics after as many as a page could have.
    pub async fn tab_to(&mut self, selector: &str) {
        for _ in 0..200 {
            if self.eval(&format!("document.activeElement.matches({})", json!(selector))).await == true {
                return;
            }
            self.press("Tab").await;
        }
        panic!("{selector} cannot be reached with the keyboard");
    }

    /// As on a screen, in light or dark.
    pub async fn look(&mut self, screen: Screen, is_dark: bool) {
        let Screen { width, height, .. } = screen;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Pictures of the whole page, in light and dark on each screen, as `NAME-SCREEN-SCHEME.png` in `directory`. Nothing may reach beyond the
    /// screen's side.
    pub async fn pictures(&mut self, directory: &Path, name: &str, screens: &[Screen]) {
        std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for screen in screens {
            for (scheme, is_dark) in [("light", false), ("dark", true)] {
                self.look(*screen, is_dark).await;
                let beyond =
                    self.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
                assert_eq!(beyond, 0, "{name} is wider than a {}", screen.name);
                let params = json!({"format": "png", "captureBeyondViewport": true});
                let picture = self.call("Page.captureScreenshot", params).await;
                let picture =
                    STANDARD.decode(picture["data"].as_str().unwrap_or_default()).expect("a picture is base64");
                let file = directory.join(format!("{name}-{}-{scheme}.png", screen.name));
                std::fs::write(&file, picture).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        }
    }
}

/// Where pictures go: `screenshots` in the target directory.
pub fn screenshots() -> PathBuf {
    let me = std::env::current_exe().expect("the path of this program");
    // target/PROFILE/deps/NAME-HASH
    let target = me.ancestors().nth(3).expect("a test lies in a target directory");
    target.join("screenshots")
}
