import Glibc

/// Calls `body` with `arguments` as a program gets them: C strings, and a null at the end.
package func withArgumentVector<Result>(
  _ arguments: [String], _ body: ([UnsafeMutablePointer<CChar>?]) throws -> Result
) rethrows -> Result {
  let vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
  defer { for argument in vector { free(argument) } }
  return try body(vector)
}

/// Waits for the end of `child`; its status as waitpid(2) has it.
package func waitForEnd(of child: pid_t) -> Int32 {
  var status: Int32 = 0
  while waitpid(child, &status, 0) < 0 && errno == EINTR {}
  return status
}
