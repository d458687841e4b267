//! Chunks, read as they come. Pure: it is fed bytes and says what they are.

/// Bytes of a size line, its extension included; more than any client sends.
const SIZE_LINE_MAX: usize = 256;
/// Bytes of what may stand after the last chunk. It is read and left.
const TRAILERS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a size line: digits until now, whether they have ended, bytes of the line.
    Size {
        digits: u8,
        ended: bool,
        bytes: usize,
    },
    /// Behind the size line's carriage return.
    SizeEnd,
    Data,
    /// Behind a chunk's data.
    DataEnd,
    DataEndLine,
    /// In the trailers: bytes of this line, bytes of all.
    Trailer {
        line: usize,
        bytes: usize,
    },
    TrailerEnd {
        line: usize,
        bytes: usize,
    },
    Done,
}

const SIZE: At = At::Size { digits: 0, ended: false, bytes: 0 };

#[derive(Debug)]
pub struct Decoder {
    at: At,
    /// Bytes of the chunk that are still to come.
    left: u64,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { at: SIZE, left: 0 }
    }
}

impl Decoder {
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Appends to `data` what `coded` holds of it; how many bytes of `coded` belong to the body.
    ///
    /// # Errors
    /// If these are no chunks.
    pub fn decode(&mut self, coded: &[u8], data: &mut Vec<u8>) -> Result<usize, BadChunk> {
        let mut used = 0;
        while used < coded.len() && !self.is_done() {
            if self.at == At::Data {
                let rest = &coded[used..];
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                data.extend_from_slice(&rest[..here]);
                used += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.at = At::DataEnd;
                }
            } else {
                self.at = self.step(coded[used])?;
                used += 1;
            }
        }
        Ok(used)
    }

    /// Where the byte after `byte` stands.
    fn step(&mut self, byte: u8) -> Result<At, BadChunk> {
        match (self.at, byte) {
            (At::Size { bytes: SIZE_LINE_MAX, .. }, _) => Err(BadChunk),
            (At::Size { digits: 1.., .. }, b'\r') => Ok(At::SizeEnd),
            (At::Size { digits: 1.., bytes, ended: false }, b';') => {
                Ok(At::Size { digits: 1, ended: true, bytes: bytes + 1 })
            }
            (At::Size { digits, ended: true, bytes }, b'\t' | b' '..=b'~') => {
                Ok(At::Size { digits, ended: true, bytes: bytes + 1 })
            }
            // Eight digits are 4 GiB: no chunk here is larger.
            (At::Size { digits: ..8, ended: false, .. }, _) => self.digit(byte),
            (At::SizeEnd, b'\n') if self.left == 0 => Ok(At::Trailer { line: 0, bytes: 0 }),
            (At::SizeEnd, b'\n') => Ok(At::Data),
            (At::DataEnd, b'\r') => Ok(At::DataEndLine),
            (At::DataEndLine, b'\n') => Ok(SIZE),
            (At::Trailer { bytes: TRAILERS_MAX, .. }, _) => Err(BadChunk),
            (At::Trailer { line, bytes }, b'\r') => Ok(At::TrailerEnd { line, bytes: bytes + 1 }),
            (At::Trailer { line, bytes }, b'\t' | b' '..=b'~') => Ok(At::Trailer { line: line + 1, bytes: bytes + 1 }),
            (At::TrailerEnd { line: 0, .. }, b'\n') => Ok(At::Done),
            (At::TrailerEnd { bytes, .. }, b'\n') => Ok(At::Trailer { line: 0, bytes }),
            _ => Err(BadChunk),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<At, BadChunk> {
        let At::Size { digits, ended, bytes } = self.at else { return Err(BadChunk) };
        let value = char::from(byte).to_digit(16).ok_or(BadChunk)?;
        self.left = self.left * 16 + u64::from(value);
        Ok(At::Size { digits: digits + 1, ended, bytes: bytes + 1 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data, and how many bytes were its coding; fed in pieces of `size`.
    fn decode(coded: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let (mut decoder, mut data, mut used) = (Decoder::default(), Vec::new(), 0);
        for piece in coded.chunks(size) {
            used += decoder.decode(piece, &mut data)?;
        }
        Ok((data, used, decoder.is_done()))
    }

    #[test]
    fn chunks_are_data_until_the_last() {
        let coded = b"5\r\nhello\r\n6;name=\"value\"\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
        let next = [&coded[..], b"GET / HTTP/1.1"].concat();
        for size in [1, 2, 7, 1000] {
            assert_eq!(decode(&next, size), Ok((b"hello world".to_vec(), coded.len(), true)), "{size}");
        }
        assert_eq!(decode(&coded[..coded.len() - 1], 3), Ok((b"hello world".to_vec(), coded.len() - 1, false)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for coded in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            " 5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "123456789\r\n",
            "5;\n\r\nhello",
            "0\r\nA: b\n\r\n",
        ] {
            assert_eq!(decode(coded.as_bytes(), 100), Err(BadChunk), "{coded:?}");
        }
        assert_eq!(decode(format!("5;{}", "a".repeat(300)).as_bytes(), 100), Err(BadChunk));
        assert_eq!(decode(format!("0\r\n{}", "a: b\r\n".repeat(2000)).as_bytes(), 100), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn what_was_put_into_chunks_comes_out(
            data in proptest::collection::vec(any::<u8>(), 0..500), chunk in 1usize..100, piece in 1usize..100
        ) {
            let mut coded = Vec::new();
            for part in data.chunks(chunk) {
                coded.extend(format!("{:X}\r\n", part.len()).bytes());
                coded.extend_from_slice(part);
                coded.extend_from_slice(b"\r\n");
            }
            coded.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&coded, piece), Ok((data, coded.len(), true)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..10) {
            decode(&bytes, piece).ok();
        }
    }
}
