import CLinux
import Glibc

/// Calls `body` with `arguments` in the form in which a program gets its arguments: C strings, and a null at the end.
package func withArgumentVector<Result>(
  _ arguments: [String], _ body: ([UnsafeMutablePointer<CChar>?]) throws -> Result
) rethrows -> Result {
  let vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  defer { for argument in vector { free(argument) } }
  return try body(vector)
}

/// Waits for the end of `child`, and returns its status as waitpid(2) gives it.
package func waitForEnd(of child: pid_t) -> Int32 {
  var status: Int32 = 0
  while waitpid(child, &status, 0) < 0 && errno == EINTR {}
  return status
}

/// The children of this process. None of these numbers can become that of another process before this process has waited for it.
package func childProcesses() -> [pid_t] {
  guard let directory = opendir("/proc") else { return [] }
  defer { closedir(directory) }
  var found: [pid_t] = []
  while let entry = readdir(directory) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    // Field 4 is the parent.
    guard let process = pid_t(name),
      ProcFile.stat(of: process, field: 4).flatMap({ pid_t($0) }) == getpid()
    else { continue }
    found.append(process)
  }
  return found
}

/// Closes all descriptors of this process except the standard ones and `kept`.
package func closeDescriptors(but kept: [Int32]) {
  var first = UInt32(STDERR_FILENO + 1)
  var ranges: [ClosedRange<UInt32>] = []
  for descriptor in kept.sorted() where descriptor >= first {
    let next = UInt32(descriptor)
    if next > first { ranges.append(first...next - 1) }
    first = next + 1
  }
  ranges.append(first...UInt32.max)
  for range in ranges where clinux_close_range(range.lowerBound, range.upperBound) != 0 {
    // Before Linux 5.9 there is no close_range(2).
    for descriptor in openDescriptors() where range.contains(UInt32(descriptor)) {
      close(descriptor)
    }
  }
}

/// The numbers of the descriptors that this process has open. One of the numbers is that of the directory, which is closed by now.
private func openDescriptors() -> [Int32] {
  guard let directory = opendir("/proc/self/fd") else { return [] }
  defer { closedir(directory) }
  var found: [Int32] = []
  while let entry = readdir(directory) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    if let descriptor = Int32(name) { found.append(descriptor) }
  }
  return found
}
