//! Where the cleartext values of a node are: memory that outlives the worker that fills it.
//!
//! A worker may be killed at any instruction. What it kept is then still here, whole values are
//! [adopted](Arena::adopt) by the next worker, and what was being written or wiped is wiped. Nor is
//! what a compromised worker left behind believed: every place and length is checked.
//!
//! First comes the [`directory`], then the records that its entries point at: the names of service and
//! target, which are no secrets, and the value.

mod directory;
mod packing;
mod room;
#[cfg(test)]
mod tests;
mod value;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secretfs_wire::{NAME_MAX_BYTES, SecretBytes, ServiceName, TargetName, VersionId};

use self::directory::{Directory, ENTRIES, Record, State};
use self::room::Room;
pub(crate) use self::value::{Slice, Value};
use super::Key;
use crate::host::shared_memory::Words;

/// All cleartext values of a node.
pub(crate) struct Arena {
    directory: Directory,
    data: Words,
    // A std mutex: held to find or give back a place, not while a value is written or wiped.
    room: Mutex<Room>,
}

/// There is no room for another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another value")]
pub(crate) struct Full;

impl Arena {
    /// How many words of memory hold any values that have so many bytes together, unless places for
    /// them are lost between others.
    pub(crate) const fn words_for(bytes: usize) -> usize {
        // Names and value each end with a word that may be filled up.
        let overhead = packing::words(2 * NAME_MAX_BYTES) + 1;
        Directory::WORDS + packing::words(bytes) + ENTRIES as usize * overhead
    }

    /// The arena in a memory, zeroed or left behind by a former worker. Only looks at it once it is
    /// told to [`adopt`](Self::adopt): until then that worker may still be at work.
    ///
    /// # Panics
    /// When the memory has no place for the directory.
    pub(crate) fn over(words: Words) -> Arc<Self> {
        let directory = words.part(0..Directory::WORDS);
        let data = words.part(Directory::WORDS..words.len());
        let room = Mutex::new(Room::new(data.len()));
        Arc::new(Self { directory: Directory::over(directory), data, room })
    }

    /// Takes over what a former worker left behind: its whole values. The rest is wiped. Called once,
    /// before anything is kept, by who knows that no other worker uses the memory any more.
    pub(crate) fn adopt(self: &Arc<Self>) -> Vec<(Key, Value)> {
        let mut room = self.lock();
        let mut adopted = Vec::new();
        let mut free = Vec::new();
        let mut remains = Vec::new();
        for entry in 0..self.directory.mark() {
            let state = self.directory.state(entry);
            if state == Some(State::Free) {
                free.push(entry);
                continue;
            }
            let record = self.directory.record(entry);
            let key = if state == Some(State::Used) { self.key_of(&record) } else { None };
            match key.filter(|_| room.claim(&record.range(self.data.len()))) {
                Some(key) => adopted.push((key, Value::new(self.clone(), entry, record))),
                None => remains.push((entry, record)),
            }
        }
        self.wipe_remains(&room, &remains);
        free.extend(remains.iter().map(|(entry, _)| entry));
        let end = adopted.last().map_or(0, |(_, value)| value.entry() + 1);
        self.directory.lower_mark(end);
        free.retain(|entry| *entry < end);
        room.set_entries(free, end);
        adopted
    }

    /// Wipes what is no value, each word once and none of a value's, also when a malicious directory
    /// has everything overlap.
    fn wipe_remains(&self, room: &Room, remains: &[(u32, Record)]) {
        for (entry, _) in remains {
            self.directory.retire(*entry);
        }
        let ranges = remains.iter().map(|(_, record)| record.range(room.size())).collect();
        for part in room.unused(ranges) {
            packing::wipe(&self.data[part]);
        }
        for (entry, _) in remains {
            self.directory.free(*entry);
        }
    }

    /// What a record is found by, if all of it makes sense.
    fn key_of(&self, record: &Record) -> Option<Key> {
        if !record.is_sound(self.data.len()) {
            return None;
        }
        let mut service = vec![0; record.service + record.target];
        packing::read(&self.data[record.names()], 0, &mut service);
        let target = service.split_off(record.service);
        Some(Key {
            service: ServiceName::try_from(String::from_utf8(service).ok()?).ok()?,
            target: TargetName::try_from(String::from_utf8(target).ok()?).ok()?,
            version: VersionId::from_u64(record.version)?,
        })
    }

    /// Copies a value into the arena.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(crate) fn keep(self: &Arc<Self>, key: &Key, value: &SecretBytes) -> Result<Value, Full> {
        let record = Record::new(key, value.len());
        let (entry, offset) = self.lock().take(record.words()).ok_or(Full)?;
        let record = Record { offset, ..record };
        self.directory.begin(entry, &record);
        let names = [key.service.as_str(), key.target.as_str()].concat();
        packing::write(&self.data[record.names()], names.as_bytes());
        packing::write(&self.data[record.bytes()], value.expose_secret());
        self.directory.finish(entry);
        Ok(Value::new(self.clone(), entry, record))
    }

    fn wipe(&self, entry: u32, record: &Record) {
        self.directory.retire(entry);
        packing::wipe(&self.data[record.range(self.data.len())]);
        self.directory.free(entry);
        // Last: nobody may take the place before it is wiped.
        self.lock().give_back(entry, record.offset);
    }

    /// No half-done state is visible between two statements, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many values there are.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        (0..self.directory.mark()).filter(|entry| self.directory.state(*entry) == Some(State::Used)).count()
    }
}
