import Glibc
import Synchronization

/// Calls `make` for the numbers from 0 up to `count`, on as many threads as the system has CPUs, and `take` with each result, on the
/// calling thread and in the order of the numbers.
///
/// - Throws: The first error in this order. All results before it were taken.
func inParallel<Value: Sendable>(
  _ count: Int, _ make: @escaping @Sendable (Int) throws -> Value, take: (Value) throws -> Void
) throws {
  let work = ParallelWork(count, make)
  // The calling thread works, too. A system that has no thread left only takes longer.
  let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
  let threads = (0..<max(0, min(count, processors) - 1)).compactMap { _ in
    WorkerThread { while work.proceed() {} }
  }
  var taken = 0
  func takeResults() throws {
    while let result = work.take(taken) {
      taken += 1
      try take(try result.get())
    }
  }
  let result = Result { while work.proceed() { try takeResults() } }
  work.stop()
  for thread in threads { thread.join() }
  try result.get()
  try takeResults()
}

/// The results of a function for the numbers from 0 up to a count. Several threads call the function.
private final class ParallelWork<Value: Sendable>: Sendable {
  private let count: Int
  private let make: @Sendable (Int) throws -> Value
  private let next = Atomic<Int>(0)
  private let results = Mutex<[Int: Result<Value, any Error>]>([:])

  init(_ count: Int, _ make: @escaping @Sendable (Int) throws -> Value) {
    self.count = count
    self.make = make
  }

  /// Makes the next result.
  ///
  /// - Returns: Whether there was one to make.
  func proceed() -> Bool {
    let number = next.wrappingAdd(1, ordering: .relaxed).oldValue
    guard number < count else { return false }
    let result = Result { try make(number) }
    results.withLock { $0[number] = result }
    return true
  }

  /// Takes a result out; nil if it is not made yet.
  func take(_ number: Int) -> Result<Value, any Error>? {
    results.withLock { $0.removeValue(forKey: number) }
  }

  /// Lets no further result be made.
  func stop() { next.store(count, ordering: .relaxed) }
}

/// A thread that calls a function once.
private struct WorkerThread {
  private final class Body: Sendable {
    let run: @Sendable () -> Void

    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  private let thread: pthread_t

  /// Starts a thread; nil if the system has none left.
  init?(_ run: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    let body = Unmanaged.passRetained(Body(run))
    let error = pthread_create(
      &thread, nil,
      { body in
        Unmanaged<Body>.fromOpaque(body!).takeRetainedValue().run()
        return nil
      }, body.toOpaque())
    guard error == 0 else {
      body.release()
      return nil
    }
    self.thread = thread
  }

  /// Waits until the function has returned. Call this once.
  func join() { pthread_join(thread, nil) }
}
