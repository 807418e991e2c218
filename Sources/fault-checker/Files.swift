import Glibc

/// The whole text of a file, or nil if it cannot be read.
func readFile(_ path: String) -> String? {
  let file = open(path, O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { return nil }
  defer { close(file) }
  var bytes: [UInt8] = []
  var part = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = read(file, &part, part.count)
    guard count >= 0 else { return nil }
    if count == 0 { return String(decoding: bytes, as: UTF8.self) }
    bytes += part[..<count]
  }
}

/// The lines of a file; none if it cannot be read.
func readLines(_ path: String) -> [Substring] {
  (readFile(path) ?? "").split(separator: "\n")
}

/// Writes a text to a file of the kernel with one system call.
func writeFile(_ path: String, _ text: String) throws(Failed) {
  let file = open(path, O_WRONLY | O_CLOEXEC)
  try require(file >= 0, "cannot write \(path): \(errorText())")
  defer { close(file) }
  let bytes = Array(text.utf8)
  try require(
    write(file, bytes, bytes.count) == bytes.count, "cannot write \(path): \(errorText())")
}

/// The names in a directory; none if it cannot be read.
func directory(_ path: String) -> [String] {
  guard let stream = opendir(path) else { return [] }
  defer { closedir(stream) }
  var names: [String] = []
  while let entry = readdir(stream) {
    // The name is an array of C, which is a tuple here.
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names
}

/// Whether there is a file, a directory or a link, even a broken one.
func exists(_ path: String) -> Bool {
  var information = stat()
  return lstat(path, &information) == 0
}

/// The absolute path of a file, without links.
func absolute(_ path: String) throws(Failed) -> String {
  guard let resolved = realpath(path, nil) else { throw Failed("\(path): \(errorText())") }
  defer { free(resolved) }
  return String(cString: resolved)
}

/// The text of an error number; of the last error of a system call, unless it is given.
func errorText(_ error: Int32 = errno) -> String { String(cString: strerror(error)) }
