//! `POSLog` XML: transactions pulled one by one out of a stream of any length, and what each says in our documents.
//!
//! Invariant: memory is bounded by one transaction, whatever the file: more bytes than [`TRANSACTION_BYTES_MAX`], deeper than [`DEPTH_MAX`], a
//! document type or an entity beyond the five of XML end the reading with a refusal; what came before was handed out. The reader
//! deliberately knows no dialect, and the mapping (`map`) no XML.

use std::io::{BufRead, Read};

use counterfoil_proto::record::Refusal;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

use super::fault;

mod control;
pub mod dialect;
mod lines;
mod map;

pub use map::map;

/// Bytes of one transaction's XML, and of what stands between two; our document of it may have 1 MiB.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Elements within elements; real files have under ten.
pub const DEPTH_MAX: usize = 32;

/// A transaction as it stands in the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// Its elements by local name: an attribute under `@name`, text beside others under `#text`, several of one name as a list.
    pub tree: Value,
    /// Its bytes, from `<` to `>`.
    pub source: Vec<u8>,
}

/// The transactions of a source, one by one. After a refusal there are no more.
#[derive(Debug)]
pub struct Transactions<R> {
    reader: Reader<Tee<R>>,
    depth: usize,
    ended: bool,
}

impl<R: BufRead> Transactions<R> {
    /// The transactions that stand in `source`.
    pub fn new(source: R) -> Self {
        let mut reader = Reader::from_reader(Tee { source, seen: Vec::new() });
        reader.config_mut().check_end_names = true;
        Self { reader, depth: 0, ended: false }
    }

    fn refuse(&self, problem: &'static str, detail: &str) -> Refusal {
        let place = self.reader.buffer_position();
        let fault = fault("", problem, format!("{detail}, near byte {place}"));
        if problem == "too-large" { Refusal::TooLarge(fault) } else { Refusal::Unreadable(fault) }
    }

    fn event(&mut self, buffer: &mut Vec<u8>) -> Result<Event<'static>, Refusal> {
        buffer.clear();
        match self.reader.read_event_into(buffer) {
            Ok(event) => Ok(event.into_owned()),
            Err(quick_xml::Error::Io(error)) if error.kind() == std::io::ErrorKind::FileTooLarge => {
                Err(self.refuse("too-large", "A transaction has at most 4 MiB of XML"))
            }
            Err(_) => Err(self.refuse("not-xml", "The file is not well-formed XML in UTF-8")),
        }
    }

    fn next_transaction(&mut self) -> Result<Option<Transaction>, Refusal> {
        let mut buffer = Vec::new();
        loop {
            match self.event(&mut buffer)? {
                Event::Start(start) if start.local_name().as_ref() == b"Transaction" => {
                    let tree = self.element(&start)?;
                    let source = std::mem::take(&mut self.reader.get_mut().seen);
                    return Ok(Some(Transaction { tree, source }));
                }
                Event::Empty(start) if start.local_name().as_ref() == b"Transaction" => {
                    let tree = self.opened(&start)?.close();
                    let source = std::mem::take(&mut self.reader.get_mut().seen);
                    return Ok(Some(Transaction { tree, source }));
                }
                Event::Start(_) => {
                    self.depth += 1;
                    if self.depth > DEPTH_MAX {
                        return Err(self.refuse("too-deep", "Elements stand too deep in each other"));
                    }
                }
                Event::End(_) => self.depth = self.depth.saturating_sub(1),
                Event::DocType(_) => return Err(self.doctype()),
                Event::Eof if self.depth > 0 => {
                    return Err(self.refuse("not-xml", "The file ends before its elements do"));
                }
                Event::Eof => return Ok(None),
                Event::Empty(_)
                | Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::GeneralRef(_) => {}
            }
            // The `<` of the tag that comes is read with the text before it.
            let seen = &mut self.reader.get_mut().seen;
            let between = seen.len().saturating_sub(usize::from(seen.last() == Some(&b'<')));
            seen.drain(..between);
        }
    }

    fn doctype(&self) -> Refusal {
        self.refuse("document-type", "A document type is not taken, nor are entities of its own")
    }

    /// The element whose start tag was read, to its end. Not recursive, so that depth is bounded by a count and not by the stack.
    fn element(&mut self, start: &BytesStart<'_>) -> Result<Value, Refusal> {
        let mut open = vec![self.opened(start)?];
        let mut buffer = Vec::new();
        loop {
            match self.event(&mut buffer)? {
                Event::Start(start) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(self.refuse("too-deep", "Elements stand too deep in each other"));
                    }
                    open.push(self.opened(&start)?);
                }
                Event::Empty(start) => {
                    let element = self.opened(&start)?;
                    if let Some(parent) = open.last_mut() {
                        parent.add(element);
                    }
                }
                Event::End(_) => {
                    let Some(element) = open.pop() else { return Err(self.refuse("not-xml", "An end without start")) };
                    match open.last_mut() {
                        Some(parent) => parent.add(element),
                        None => return Ok(element.close()),
                    }
                }
                Event::Text(text) => {
                    let text = text.xml_content().map_err(|_| self.refuse("not-xml", "The text is not UTF-8"))?;
                    push(&mut open, &text);
                }
                Event::CData(text) => {
                    let text = text.xml_content().map_err(|_| self.refuse("not-xml", "The text is not UTF-8"))?;
                    push(&mut open, &text);
                }
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().ok().flatten().map(String::from);
                    let name = reference.decode().ok();
                    let text = character.or_else(|| resolve_predefined_entity(&name?).map(str::to_owned));
                    let text =
                        text.ok_or_else(|| self.refuse("unknown-entity", "An entity is not one of the five of XML"))?;
                    push(&mut open, &text);
                }
                Event::DocType(_) => return Err(self.doctype()),
                Event::Eof => return Err(self.refuse("not-xml", "The file ends within a transaction")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
    }

    fn opened(&self, start: &BytesStart<'_>) -> Result<Open, Refusal> {
        let not_utf8 = || self.refuse("not-xml", "A name is not UTF-8");
        let name = std::str::from_utf8(start.local_name().into_inner()).map_err(|_| not_utf8())?.to_owned();
        let mut members = Map::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| self.refuse("not-xml", "An attribute is not well-formed"))?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let name = std::str::from_utf8(attribute.key.local_name().into_inner()).map_err(|_| not_utf8())?;
            let value =
                attribute.unescape_value().map_err(|_| self.refuse("unknown-entity", "An attribute cannot be read"))?;
            members.insert(format!("@{name}"), value.into_owned().into());
        }
        Ok(Open { name, members, text: String::new() })
    }
}

impl<R: BufRead> Iterator for Transactions<R> {
    type Item = Result<Transaction, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_transaction();
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

fn push(open: &mut [Open], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// An element whose end has not come.
#[derive(Debug)]
struct Open {
    name: String,
    members: Map<String, Value>,
    text: String,
}

impl Open {
    fn add(&mut self, element: Self) {
        let name = element.name.clone();
        let value = element.close();
        match self.members.get_mut(&name) {
            None => {
                self.members.insert(name, value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => {
                let list = vec![first.take(), value];
                *first = Value::Array(list);
            }
        }
    }

    fn close(mut self) -> Value {
        let text = self.text.trim();
        if self.members.is_empty() {
            return text.into();
        }
        if !text.is_empty() {
            self.members.insert("#text".to_owned(), text.into());
        }
        Value::Object(self.members)
    }
}

/// A source that keeps what was read of it, up to the bound.
#[derive(Debug)]
struct Tee<R> {
    source: R,
    seen: Vec<u8>,
}

impl<R: BufRead> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Tee<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.seen.len() > TRANSACTION_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(buffer) = self.source.fill_buf()
            && let Some(consumed) = buffer.get(..count)
        {
            self.seen.extend_from_slice(consumed);
        }
        self.source.consume(count);
    }
}
